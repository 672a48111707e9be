//! The host is a container itself: it has few ids, or few capabilities. What is said to be in the way is, and what is said to
//! help does.

use tests::{Cmd, Result, Suite, TestBox, ensure};

use crate::doctor::{Check, paste};
use crate::{TOOL, in_order};

/// The user in such a container; `$1` is a command line.
const AS_USER: &str = "--reuid tester --regid tester --init-groups env HOME=/home/tester USER=tester \
                       XDG_RUNTIME_DIR=/run/user/1001 sh -c";

/// A line of the user in a user namespace that has only the first `count` ids of the box, as in an unprivileged container of
/// LXC. There they are the first ones of all, since the files of the box belong to those.
fn mapped<'b>(b: &'b TestBox, count: u32, line: &str) -> Cmd<'b> {
    b.root(&format!(
        "unshare --user --mount sleep infinity & p=$!
         until [ \"$(readlink /proc/$p/ns/user)\" != \"$(readlink /proc/self/ns/user)\" ]; do sleep 0.02; done
         echo 0 0 {count} > /proc/$p/uid_map; echo 0 0 {count} > /proc/$p/gid_map
         nsenter -U -m -t $p -S 0 -G 0 setpriv {AS_USER} '{line}'; s=$?
         kill $p; exit $s"
    ))
    .limit(120)
}

/// A line of the user with nothing but these capabilities in the bounding set, as in a container that drops the others.
fn bounded<'b>(b: &'b TestBox, caps: &str, line: &str) -> Cmd<'b> {
    b.root(&format!("exec setpriv --bounding-set={caps} {AS_USER} '{line}'")).limit(120)
}

#[test]
fn ids_that_a_container_lacks_are_named_and_exchanged() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("mkdir -p /run/systemd; echo lxc > /run/systemd/container").ok()?;
    let check = |count, flags: &str| mapped(&b, count, &format!("{TOOL} check {flags}"));
    let before = Check::of(check(65536, "--json"))?;
    assert_eq!(
        (before.status, before.fatal()),
        (1, vec!["subid-outside".to_owned()]),
        "{before:?}"
    );
    let said = check(65536, "").run()?;
    in_order(
        &[said.stderr, said.stdout.clone()].concat(),
        &[
            "gives tester the IDs 100000-165535, but this container has only 0-65535",
            "`lxc.idmap = u 0 0 165536`",
            "usermod --del-subuids 100000-165535 --add-subuids 10000-65533 --del-subgids 100000-165535 \
             --add-subgids 10000-65533 tester",
        ],
    )?;
    // rootlesskit by itself says the same.
    let failed = mapped(&b, 65536, "rootlesskit true").run()?;
    ensure!(failed.code == 1, "{failed}");
    in_order(
        &failed.stderr,
        &[
            "write to uid_map failed: Operation not permitted",
            "hint: this container does not have the IDs 100000-165535",
            "such as 10000-65533",
        ],
    )?;
    // More ids by the host are enough.
    let widened = Check::of(check(165_536, "--json"))?;
    ensure!(widened.fatal().is_empty() && !widened.has("subid-few"), "{widened:?}");
    // Or the range that was proposed, as far as it goes.
    paste(&b, &said.stdout)?;
    let after = Check::of(check(65536, "--json"))?;
    ensure!(after.fatal().is_empty() && after.has("subid-few"), "{after:?}");
    mapped(&b, 65536, "rootlesskit true").ok()?;
    Ok(())
}

/// What Docker gives a container.
const OF_DOCKER: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,\
                         +sys_chroot,+mknod,+audit_write,+setfcap";
/// What a pod has that drops ALL and adds what is needed.
const OF_POD: &str = "-all,+setuid,+setgid";

#[test]
fn a_setuid_newuidmap_with_few_capabilities_gets_them_from_its_file() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let tools = "/usr/bin/newuidmap /usr/bin/newgidmap";
    let check = |caps, flags: &str| bounded(&b, caps, &format!("{TOOL} check {flags}"));
    for (caps, lacking) in [
        (OF_POD, "CAP_SYS_ADMIN and CAP_DAC_OVERRIDE"),
        (OF_DOCKER, "CAP_SYS_ADMIN"),
        ("-all,+setuid,+setgid,+sys_admin", "CAP_DAC_OVERRIDE"),
    ] {
        b.root(&format!(
            "setcap -r /usr/bin/newuidmap; setcap -r /usr/bin/newgidmap; chmod u+s {tools}"
        ))
        .ok()?;
        let before = Check::of(check(caps, "--json"))?;
        let fatal = before.fatal();
        assert_eq!(
            (before.status, fatal),
            (1, vec!["newuidmap-setuid".to_owned()]),
            "{caps}: {before:?}"
        );
        let said = check(caps, "").run()?;
        let seen = format!("/usr/bin/newuidmap is setuid root and therefore needs {lacking}");
        in_order(&said.stderr, &[&seen])?;
        let failed = bounded(&b, caps, "rootlesskit true").run()?;
        in_order(
            &failed.stderr,
            &["uid_map failed: ", "hint: ", &seen, "chmod u-s /usr/bin/newuidmap"],
        )?;
        if caps == OF_DOCKER {
            paste(&b, &said.stdout)?;
        } else {
            // No CAP_SETFCAP: the image has to have it.
            let lines = said.stderr.split("image's Dockerfile: RUN ").skip(1);
            let commands: Vec<&str> = lines.filter_map(|rest| rest.lines().next()).collect();
            assert_eq!(commands.len(), 2, "{said}");
            b.root(&commands.join("\n")).ok()?;
        }
        let after = Check::of(check(caps, "--json"))?;
        ensure!(after.fatal().is_empty(), "{caps}: {after:?}");
        bounded(&b, caps, "rootlesskit true").ok()?;
    }
    Ok(())
}

#[test]
fn what_no_file_can_help_with_is_for_the_container() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    let enough = "-all,+setuid,+setgid,+sys_admin,+dac_override";
    bounded(&b, enough, "rootlesskit true").ok()?;
    let few = Check::of(bounded(&b, "-all,+setgid", &format!("{TOOL} check --json")))?;
    // newgidmap could get what it needs from its file.
    assert_eq!(few.fatal(), ["container-caps", "newuidmap-setuid"], "{few:?}");
    // With its capability from the file the program does not even start.
    b.root("chmod u-s /usr/bin/newuidmap; setcap cap_setuid=ep /usr/bin/newuidmap").ok()?;
    let failed = bounded(&b, "-all,+setgid", "rootlesskit true").run()?;
    in_order(
        &failed.stderr,
        &["cannot run `", "Operation not permitted", "hint: this container lacks CAP_SETUID"],
    )
}

/// What documents say for other hosts makes a program that worked useless.
#[test]
fn capabilities_beside_the_setuid_bit_are_less_than_either() -> Result<()> {
    let b = TestBox::boot(Suite::Sid)?;
    b.root("setcap cap_setuid=ep /usr/bin/newuidmap; setcap cap_setgid=ep /usr/bin/newgidmap")
        .ok()?;
    let before = Check::of(b.user(&format!("{TOOL} check --json")))?;
    assert_eq!(before.fatal(), ["newuidmap-both"], "{before:?}");
    let failed = b.user("rootlesskit true").run()?;
    in_order(
        &failed.stderr,
        &["open of uid_map failed: Permission denied", "run `sudo chmod u-s"],
    )?;
    let said = b.user(&format!("{TOOL} check")).run()?;
    paste(&b, &said.stdout)?;
    b.user(&format!("{TOOL} check")).ok()?;
    b.user("rootlesskit true").ok().map(drop)
}
