use super::Severity::{Advisory, Class, Fatal};
use super::{Case, all, case};
use crate::facts::Facts;
use crate::probe::Probe;

const NOT_PERMITTED: &str = "newuidmap: write to uid_map failed: Operation not permitted";
const NOT_OPENED: &str = "newuidmap: open of uid_map failed: Permission denied";

/// An unprivileged container of LXC.
fn lxc(h: &mut super::host::Host) {
    h.write("run/systemd/container", "lxc\n");
    h.write("proc/self/uid_map", "         0    1000000      65536\n");
    h.write("proc/self/gid_map", "         0    1000000      65536\n");
}

fn spoil_tool(facts: &mut Facts, spoil: fn(&mut idmap::diagnose::Facts)) {
    let power = &mut facts.ids.tools[0].found.as_mut().expect("newuidmap").1;
    *power = idmap::diagnose::Facts { setuid: true, ..Default::default() };
    spoil(power);
}

#[test]
fn situations_of_the_programs_that_map_ids() {
    all(&the_programs_that_map_ids());
}

pub(super) fn the_programs_that_map_ids() -> Vec<Case> {
    vec![
        case(
            "newuidmap and newgidmap are missing on Debian",
            Fatal,
            "newuidmap-missing",
            "apt-get install -y uidmap",
            |h| {
                h.remove("bin/newuidmap");
                h.remove("bin/newgidmap");
            },
        ),
        case(
            "only one of the two is missing",
            Fatal,
            "newuidmap-missing",
            "apt-get install -y uidmap",
            |h| {
                h.remove("bin/newgidmap");
            },
        ),
        case(
            "both are missing on Fedora",
            Fatal,
            "newuidmap-missing",
            "dnf install -y shadow-utils",
            |h| {
                h.os("ID=fedora\nVERSION_ID=42\n");
                h.remove("bin/newuidmap");
            },
        ),
        case(
            "both are missing on CentOS 7",
            Fatal,
            "newuidmap-missing",
            "shadow-utils46-newxidmap",
            |h| {
                h.os("ID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"\n");
                h.remove("bin/newuidmap");
            },
        ),
        case(
            "both are missing on Alpine",
            Fatal,
            "newuidmap-missing",
            "apk add shadow-subids",
            |h| {
                h.os("ID=alpine\n");
                h.remove("bin/newuidmap");
            },
        ),
        case("both are missing on NixOS", Fatal, "newuidmap-missing", "/run/wrappers/bin", |h| {
            h.os("ID=nixos\n");
            h.remove("bin/newuidmap");
        }),
        case(
            "newuidmap has neither the setuid bit nor capabilities",
            Fatal,
            "newuidmap-powerless",
            "setcap cap_setuid=ep",
            |h| {
                h.fails(Probe::Namespaces, NOT_PERMITTED);
            },
        )
        .facts(|facts| spoil_tool(facts, |power| power.setuid = false)),
        case(
            "newuidmap is on a file system mounted nosuid",
            Fatal,
            "newuidmap-nosuid",
            "without nosuid",
            |h| {
                h.fails(Probe::Namespaces, NOT_PERMITTED);
            },
        )
        .facts(|facts| spoil_tool(facts, |power| power.nosuid = true)),
        case(
            "the session runs with NoNewPrivileges=",
            Fatal,
            "no-new-privs",
            "remove NoNewPrivileges=",
            |h| {
                h.fails(Probe::Namespaces, NOT_PERMITTED);
            },
        )
        .facts(|facts| spoil_tool(facts, |power| power.no_new_privs = true)),
        case(
            "newuidmap has both the setuid bit and capabilities",
            Fatal,
            "newuidmap-both",
            "chmod u-s ",
            |h| {
                h.fails(Probe::Namespaces, NOT_OPENED);
            },
        )
        .facts(|facts| spoil_tool(facts, |power| power.file_caps = true)),
        case(
            "newuidmap is setuid in a Docker container without --privileged",
            Fatal,
            "newuidmap-setuid in-container",
            "setcap cap_setuid=ep",
            |h| {
                h.write(".dockerenv", "");
                h.fails(Probe::Namespaces, NOT_PERMITTED);
            },
        )
        .facts(|facts| spoil_tool(facts, |power| power.bounding = Some(0xa804_25fb))),
        case(
            "newuidmap is setuid in a pod with only SETUID and SETGID",
            Fatal,
            "newuidmap-setuid in-container",
            "add this to the image's Dockerfile: RUN chmod u-s ",
            |h| {
                h.set("KUBERNETES_SERVICE_HOST", "10.96.0.1");
                h.fails(Probe::Namespaces, NOT_OPENED);
            },
        )
        .facts(|facts| spoil_tool(facts, |power| power.bounding = Some(0xc0))),
        case(
            "this machine is a pod without capabilities",
            Fatal,
            "container-caps in-container",
            "capabilities: {add: [SETUID, SETGID]}",
            |h| {
                h.write("run/secrets/kubernetes.io/x", "");
                h.fails(Probe::Namespaces, NOT_PERMITTED);
            },
        )
        .facts(|facts| spoil_tool(facts, |power| power.bounding = Some(0))),
        case("permissions look wrong, but the trial run succeeds", Fatal, "", "", |_| {})
            .facts(|facts| spoil_tool(facts, |power| power.setuid = false)),
    ]
}

#[test]
fn situations_of_subordinate_ids() {
    all(&subordinate_ids());
}

pub(super) fn subordinate_ids() -> Vec<Case> {
    vec![
        case(
            "the user has no subordinate IDs",
            Fatal,
            "subid-missing",
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 jo",
            |h| {
                h.write("etc/subuid", "");
                h.write("etc/subgid", "");
            },
        ),
        case(
            "the usual range belongs to another user",
            Fatal,
            "subid-missing",
            "--add-subuids 165536-231071",
            |h| {
                h.write("etc/subuid", "amy:100000:65536\n");
                h.write("etc/subgid", "amy:100000:65536\n");
            },
        ),
        case(
            "neither the files nor usermod exist",
            Fatal,
            "subid-missing",
            "printf '%s\\n' jo:100000:65536 >> /etc/subuid",
            |h| {
                h.remove("etc/subuid");
                h.remove("etc/subgid");
                h.remove("usr/sbin/usermod");
            },
        ),
        case(
            "only the GIDs are missing",
            Fatal,
            "subid-missing",
            "usermod --add-subgids 165536-231071 jo",
            |h| {
                h.write("etc/subgid", "");
            },
        ),
        case(
            "only a user with a similar name has an entry",
            Fatal,
            "subid-missing",
            "usermod",
            |h| {
                h.write("etc/subuid", "joe:100000:65536\nj.:200000:65536\n");
                h.write("etc/subgid", "joe:100000:65536\nj.:200000:65536\n");
            },
        ),
        case(
            "systemd-homed is in use",
            Fatal,
            "subid-missing",
            "--add-subuids 524288-589823",
            |h| {
                h.write("run/systemd/userdb/io.systemd.Home", "");
                h.write("etc/subuid", "");
                h.write("etc/subgid", "");
            },
        ),
        case(
            "the user has no subordinate IDs on NixOS",
            Fatal,
            "subid-missing",
            "add { startUid = 100000; count = 65536; } to users.users.jo.subUidRanges",
            |h| {
                h.os("ID=nixos\n");
                h.write("etc/subuid", "");
                h.write("etc/subgid", "");
            },
        ),
        case(
            "the user has too few subordinate IDs",
            Class,
            "subid-few",
            "usermod --add-subuids 101000-166535 --add-subgids 101000-166535 jo",
            |h| {
                h.write("etc/subuid", "jo:100000:1000\n");
                h.write("etc/subgid", "jo:100000:1000\n");
            },
        ),
        case("two small ranges together are enough", Fatal, "", "", |h| {
            h.write("etc/subuid", "jo:100000:32768\njo:300000:32768\n");
        }),
        case("a domain user is listed by UID", Fatal, "", "", |h| {
            let uid = h.world.uid;
            h.write("etc/passwd", &format!("CORP\\Jo Doe:x:{uid}:{uid}::/h:/bin/sh\n"));
            h.write("var/lib/systemd/linger/CORP\\Jo Doe", "");
            for file in ["etc/subuid", "etc/subgid"] {
                h.write(file, &format!("{uid}:100000:65536\n"));
            }
        }),
        case(
            "a domain user has no subordinate IDs",
            Fatal,
            "subid-missing",
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 'CORP\\Jo Doe'",
            |h| {
                let uid = h.world.uid;
                h.write("etc/passwd", &format!("CORP\\Jo Doe:x:{uid}:{uid}::/h:/bin/sh\n"));
                h.write("var/lib/systemd/linger/CORP\\Jo Doe", "");
                h.write("etc/subuid", "");
                h.write("etc/subgid", "");
            },
        ),
        case(
            "an LDAP user has no subordinate IDs",
            Fatal,
            "subid-missing",
            "printf '%s\\n' ann:100000:65536 >> /etc/subuid",
            |h| {
                h.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
                h.set("USER", "ann");
                h.write("var/lib/systemd/linger/ann", "");
                h.write("etc/subuid", "");
                h.write("etc/subgid", "");
            },
        ),
        case(
            "the user cannot read /etc/subuid",
            Fatal,
            "subid-unreadable",
            "chmod 0644 /etc/subuid",
            |_| {},
        )
        .facts(|facts| facts.ids.unreadable = Some("/etc/subuid".into())),
        case("the user's entry is malformed", Fatal, "subid-malformed", "USER:START:COUNT", |h| {
            h.write("etc/subuid", "jo:100000\n");
        }),
        case(
            "an unprivileged LXC container has the range that useradd assigns",
            Fatal,
            "subid-outside in-container",
            "usermod --del-subuids 100000-165535 --add-subuids 10000-65533 --del-subgids 100000-165535 \
             --add-subgids 10000-65533 jo",
            |h| {
                lxc(h);
                h.fails(Probe::Namespaces, NOT_PERMITTED);
            },
        ),
        case(
            "the container has the entries meant for its host",
            Fatal,
            "subid-outside in-container",
            "lxc.idmap = u 0 1000000 165536",
            |h| {
                lxc(h);
                h.remove("usr/sbin/usermod");
                h.fails(Probe::Namespaces, NOT_PERMITTED);
            },
        ),
        case(
            "the container has only one of two ranges",
            Fatal,
            "subid-outside in-container",
            "usermod --del-subuids 100000-165535 --add-subuids 50000-65533 jo",
            |h| {
                lxc(h);
                h.write("etc/subuid", "jo:2000:48000\njo:100000:65536\n");
                h.write("etc/subgid", "jo:2000:48000\n");
                h.fails(Probe::Namespaces, NOT_PERMITTED);
            },
        ),
        case(
            "an unprivileged LXC container has no subordinate IDs",
            Fatal,
            "subid-missing in-container",
            "usermod --add-subuids 10000-65533 --add-subgids 10000-65533 jo",
            |h| {
                lxc(h);
                h.write("etc/subuid", "");
                h.write("etc/subgid", "");
                h.fails(Probe::Namespaces, "No subuid ranges found for user 1000 (\"jo\")");
            },
        ),
        case(
            "an LXC container has fewer IDs than usual",
            Class,
            "subid-few in-container",
            "lxc.idmap = u 0 1000000 165536",
            |h| {
                lxc(h);
                h.write("etc/subuid", "jo:10000:55534\n");
                h.write("etc/subgid", "jo:10000:55534\n");
            },
        ),
        case(
            "another user's own UID is in the range",
            Advisory,
            "subid-overlap",
            "You lose all images, containers and volumes",
            |h| {
                let uid = h.world.uid;
                h.write(
                    "etc/passwd",
                    &format!("jo:x:{uid}:{uid}::/h:/bin/sh\namy:x:100500:1::/h:/bin/sh\n"),
                );
            },
        ),
        case(
            "the range overlaps another user's range",
            Advisory,
            "subid-overlap",
            "then change the range: sudo usermod --del-subuids 100000-165535 --add-subuids 230536-296071 jo",
            |h| {
                h.write("etc/subuid", "jo:100000:65536\namy:165000:65536\n");
            },
        ),
        case(
            "the next ranges that are unused in /etc/subuid and /etc/subgid contain IDs of existing users and groups",
            Fatal,
            "subid-missing",
            "--add-subuids 200001-265536 --add-subgids 200001-265536 jo",
            |h| {
                let passwd = std::fs::read_to_string(h.at("etc/passwd")).expect("passwd");
                h.write("etc/passwd", &format!("{passwd}amy:x:100500:100500::/h:/bin/sh\n"));
                h.write("etc/group", "staff:x:165000:\nmore:x:200000:amy\n");
                h.write("etc/subuid", "");
                h.write("etc/subgid", "");
            },
        ),
    ]
}
