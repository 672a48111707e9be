//! `uninstall --purge` loses nothing that is not the daemon's. Each of these tests has something precious in a place that
//! a careless deletion reaches. The file is long because its tests share one fixture.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::place::{Finished, Place};

const DATA: &str = "home/.local/share/docker";
/// What rootlesskit does, as far as the deletion is concerned.
const NAMESPACE: &str = "ROOTLESSKIT_STATE_DIR=/x exec unshare --map-root-user \"$@\"";

/// A data directory of a daemon that has been used.
fn used() -> Place {
    let place = Place::new();
    place.stub("rootlesskit", NAMESPACE);
    data(&place, DATA);
    place
}

fn data(place: &Place, dir: &str) {
    for name in ["engine-id", "volumes/metadata.db", "volumes/db/_data/x", "overlay2/l/x"] {
        place.write(&format!("{dir}/{name}"), "1");
    }
}

fn purge(place: &Place) -> Finished {
    place.run(&["uninstall", "--purge"])
}

/// From here on this thread has mounts of its own, and so have the programs that it starts. They end with it.
fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root");
    let flags = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private mounts");
}

/// A mount below a place, which cannot be removed with it.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // The test may have unmounted it.
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

#[must_use]
fn bind(from: &Path, to: PathBuf) -> Mount {
    mount(Some(from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a bind mount");
    Mount(to)
}

#[test]
fn mounts_below_the_data_are_listed_and_nothing_is_changed() {
    own_mounts();
    let place = used();
    place.write("home/.config/systemd/user/docker.service", "[Unit]\n");
    place.write("home/nas/precious", "1");
    place.write(&format!("{DATA}/volumes/nas/_data/under"), "1");
    place.write(&format!("{DATA}/volumes/a b/_data/under"), "1");
    // Of the same file system, which looks like no mount at all.
    let _nas = bind(&place.at("home/nas"), place.at(&format!("{DATA}/volumes/nas/_data")));
    let tmpfs = place.at(&format!("{DATA}/volumes/a b/_data"));
    mount(None::<&str>, &tmpfs, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
    let _tmpfs = Mount(tmpfs.clone());
    fs::write(tmpfs.join("precious"), "1").expect("a file");
    let refused = purge(&place);
    refused.exits(1).says("[ERROR] file systems are mounted below @/home/.local/share/docker");
    refused.says("[ERROR]   sudo umount '@/home/.local/share/docker/volumes/a b/_data'\n");
    refused.says("[ERROR]   sudo umount @/home/.local/share/docker/volumes/nas/_data\n");
    refused.says("nothing was changed");
    assert!(place.read("home/nas/precious").is_some() && tmpfs.join("precious").exists());
    assert!(place.read("home/.config/systemd/user/docker.service").is_some());
    assert!(place.read(&format!("{DATA}/engine-id")).is_some());
    assert!(!place.calls().iter().any(|call| call.contains("stop")), "{:?}", place.calls());

    // The lines that were printed are all it takes.
    for line in refused.stderr.lines().filter_map(|line| line.strip_prefix("[ERROR]   sudo ")) {
        let line = line.replace('@', place.text("").trim_end_matches('/'));
        assert!(Command::new("sh").args(["-c", &line]).status().expect("sh").success(), "{line}");
    }
    purge(&place).exits(0).prints("Removed @/home/.local/share/docker\n");
    assert!(place.read("home/nas/precious").is_some() && !place.at(DATA).exists());
}

#[test]
fn mounts_of_the_namespace_in_which_the_deletion_happens_count_too() {
    let place = used();
    place.write("home/nas/precious", "1");
    let point = format!("{DATA}/volumes/db/_data");
    place.stub(
        "rootlesskit",
        &format!(
            "ROOTLESSKIT_STATE_DIR=/x exec unshare --map-root-user --mount sh -c 'mount --bind {} {} && exec \"$@\"' sh \"$@\"",
            place.text("home/nas"),
            place.text(&point)
        ),
    );
    let refused = purge(&place);
    refused
        .exits(1)
        .says("file systems are mounted below")
        .says("umount @/home/.local/share/docker/volumes/db");
    assert!(place.read("home/nas/precious").is_some());
    for file in ["engine-id", "overlay2/l/x", "volumes/db/_data/x"] {
        assert!(place.read(&format!("{DATA}/{file}")).is_some(), "{file}");
    }
}

#[test]
fn a_data_directory_that_is_a_mount_point_is_emptied() {
    own_mounts();
    let place = used();
    data(&place, "home/disk");
    place.write("home/disk/lost+found/x", "1");
    let _disk = bind(&place.at("home/disk"), place.at(DATA));
    purge(&place).exits(0).prints("Emptied @/home/.local/share/docker");
    assert!(place.read("home/disk/lost+found/x").is_some());
    assert!(!place.at("home/disk/volumes").exists());
    // What the mount hides is not what was purged.
    assert!(place.at(DATA).exists());
}

#[test]
fn what_dockerd_did_not_make_is_listed_and_stays() {
    let place = used();
    place.write(&format!("{DATA}/compose/precious"), "1");
    place.write(&format!("{DATA}/notes.txt"), "1");
    purge(&place).exits(0).says(
        "[WARNING] @/home/.local/share/docker was kept, because it contains files that dockerd did not create: \
         compose, notes.txt\n",
    );
    assert!(place.read(&format!("{DATA}/compose/precious")).is_some());
    assert!(place.read(&format!("{DATA}/notes.txt")).is_some());
    assert!(!place.at(&format!("{DATA}/volumes")).exists());
    assert!(!place.at(&format!("{DATA}/engine-id")).exists());
}

#[test]
fn directories_of_the_right_name_alone_stay() {
    let place = Place::new();
    place.stub("rootlesskit", NAMESPACE);
    for file in
        ["home/.local/share/docker/volumes/x", "run/docker/plugins/x", "run/dockerd-rootless/hosts"]
    {
        place.write(file, "1");
    }
    // What another engine has in the daemon's place.
    symlink("podman/podman.sock", place.at("run/docker.sock")).expect("a link");
    fs::create_dir(place.at("run/docker.pid")).expect("a directory");
    let done = purge(&place);
    done.exits(0);
    for words in [
        "@/home/.local/share/docker was kept, because nothing in it shows that dockerd created it: volumes\n",
        "@/run/docker was kept, because nothing in it shows that dockerd created it: plugins\n",
        "@/run/dockerd-rootless was kept, because nothing in it shows that rootlesskit created it: hosts\n",
    ] {
        done.says(words);
    }
    for file in
        ["home/.local/share/docker/volumes/x", "run/docker/plugins/x", "run/dockerd-rootless/hosts"]
    {
        assert!(place.read(file).is_some(), "{file}");
    }
    assert!(place.at("run/docker.sock").is_symlink() && place.at("run/docker.pid").is_dir());
}

#[test]
fn a_link_goes_together_with_the_data_that_it_leads_to() {
    let place = Place::new();
    place.stub("rootlesskit", NAMESPACE);
    data(&place, "big/docker");
    place.write("big/other", "1");
    chown(place.at("big"), Some(65534), None).expect("root");
    place.write("home/.local/share/x", "");
    symlink(place.at("big/docker"), place.at(DATA)).expect("a link");
    let done = purge(&place);
    done.exits(0)
        .prints("[INFO] @/home/.local/share/docker is a link; the data is in @/big/docker\n")
        .prints("[INFO] Removed @/big/docker\n")
        .prints("[INFO] Removed @/home/.local/share/docker\n");
    assert!(!place.at("big/docker").exists() && !place.at(DATA).is_symlink());
    assert!(place.read("big/other").is_some());
}

#[test]
fn a_link_stays_with_what_it_leads_to() {
    for (present, words) in [
        // Not mounted today.
        (false, "is a link to @/big, which cannot be reached"),
        (true, "@/big was kept, because it also contains files that are not Docker's: precious\n"),
    ] {
        let place = Place::new();
        place.stub("rootlesskit", NAMESPACE);
        place.write("home/.local/share/x", "");
        symlink(place.at("big"), place.at(DATA)).expect("a link");
        if present {
            data(&place, "big");
            place.write("big/precious", "1");
        }
        let done = purge(&place);
        done.exits(1).says(words);
        assert!(place.at(DATA).is_symlink(), "{present}");
        assert_eq!(place.read("big/precious").is_some(), present);
        assert_eq!(place.read("big/volumes/db/_data/x").is_some(), present);
    }
}

#[test]
fn an_entry_that_is_a_link_stays_with_what_it_leads_to() {
    let place = used();
    place.write("big/precious", "1");
    fs::remove_dir_all(place.at(&format!("{DATA}/volumes"))).expect("a directory");
    symlink(place.at("big"), place.at(&format!("{DATA}/volumes"))).expect("a link");
    // The volumes are left, so this is no success.
    purge(&place)
        .exits(1)
        .says("links to other places: volumes\n")
        .says("hint: if the data at the links' targets is Docker's");
    assert!(place.read("big/precious").is_some());
    assert!(place.at(&format!("{DATA}/volumes")).is_symlink());
    assert!(!place.at(&format!("{DATA}/overlay2")).exists());
}

#[test]
fn a_data_root_of_the_users_choice_goes_only_if_nothing_else_is_in_it() {
    for shared in [false, true] {
        let place = used();
        data(&place, "big/docker");
        if shared {
            place.write("big/docker/precious", "1");
        }
        let config = format!("{{\"data-root\":\"{}\"}}", place.text("big/docker"));
        place.write("home/.config/docker/daemon.json", &config);
        chown(place.at("big"), Some(65534), None).expect("root");
        let unit = "home/.config/systemd/user/docker.service";
        place.write(unit, "[Unit]\n");
        let done = purge(&place);
        done.exits(i32::from(shared));
        if shared {
            done.says(
                "@/big/docker was kept, because it also contains files that are not Docker's: precious\n",
            );
            done.says("Docker's files are: overlay2, volumes, engine-id\n");
            done.says("hint: move your own files elsewhere");
            done.says("nothing was changed\n");
        }
        for file in ["precious", "engine-id", "volumes/db/_data/x"] {
            assert_eq!(place.read(&format!("big/docker/{file}")).is_some(), shared, "{file}");
        }
        assert_eq!((place.at(DATA).exists(), place.at(unit).exists()), (shared, shared));
    }
}

/// As far as the data is concerned, a home with a daemon's entries in it is a home.
#[test]
fn programs_that_run_in_a_shared_data_root_do_not_matter() {
    let place = used();
    data(&place, "home");
    place.write(
        "home/.config/docker/daemon.json",
        &format!("{{\"data-root\":\"{}\"}}", place.text("home")),
    );
    let user = place.process(&place.at("home"), &["sleep", "1000"]);
    purge(&place)
        .exits(1)
        .says("@/home was kept, because it also contains files that are not Docker's: .config");
    drop(user);
    assert!(place.read("home/volumes/db/_data/x").is_some());
}

#[test]
fn the_units_data_root_is_found_before_the_unit_goes() {
    let place = Place::new();
    place.stub("rootlesskit", NAMESPACE);
    data(&place, "big/docker");
    let unit = format!("[Service]\nExecStart=/d.sh --data-root={}\n", place.text("big/docker"));
    place.write("home/.config/systemd/user/docker.service", &unit);
    chown(place.at("big"), Some(65534), None).expect("root");
    purge(&place).exits(0).prints("Removed @/big/docker\n");
}

#[test]
fn data_in_use_stays_and_the_user_is_named() {
    let place = used();
    let inside = place.at(&format!("{DATA}/volumes"));
    let user = place.process(&inside, &["sleep", "1000"]);
    let pid = user.0.id();
    let refused = purge(&place);
    refused
        .exits(1)
        .says("[ERROR] the daemon's data is in use, so it was kept:\n")
        .says(&format!("[ERROR]   sleep (pid {pid}) has its working directory at @/home/.local/share/docker/volumes\n"))
        .says(&format!("[ERROR]   kill {pid}\n"));
    assert!(place.read(&format!("{DATA}/volumes/db/_data/x")).is_some());
    drop(user);

    // Whom nobody sees holds a lock.
    let file = File::open(place.at(&format!("{DATA}/volumes/metadata.db"))).expect("a file");
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("a lock");
    purge(&place).exits(1).says("metadata.db is locked by a running daemon");
    assert!(place.read(&format!("{DATA}/engine-id")).is_some());
    drop(lock);
    purge(&place).exits(0);
    assert!(!place.at(DATA).exists());
}

#[test]
fn a_daemon_that_answers_or_holds_its_state_directory_keeps_its_data() {
    let place = used();
    place.daemon();
    purge(&place).exits(1).says("listens on @/run/docker.sock\n");
    place.daemon_stops();

    place.write("home/state/lock", "");
    place.write(
        "home/.config/systemd/user/docker.service.d/x.conf",
        &format!(
            "[Service]\nEnvironment=DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR={}\n",
            place.text("home/state")
        ),
    );
    let file = File::open(place.at("home/state/lock")).expect("a file");
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).expect("a lock");
    purge(&place).exits(1).says("rootlesskit is running in @/home/state\n");
    assert!(place.read(&format!("{DATA}/engine-id")).is_some());
    drop(lock);
    purge(&place).exits(0);
    assert!(place.read("home/state/lock").is_some() && !place.at(DATA).exists());
}

#[test]
fn without_rootlesskit_the_same_rules_hold() {
    let mut place = used();
    place.write(&format!("{DATA}/overlay2/ro/x"), "1");
    place.write(&format!("{DATA}/precious"), "1");
    for mode in [0o555, 0o000] {
        let dir = place.at(&format!("{DATA}/overlay2/ro{mode:o}"));
        fs::create_dir(&dir).expect("a directory");
        fs::write(dir.join("x"), "").expect("a file");
        chown(&dir, Some(65534), None).expect("root");
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("root");
    }
    place.remove_stub("rootlesskit");
    purge(&place).exits(0).says("did not create: precious\n");
    assert!(place.read(&format!("{DATA}/precious")).is_some());
    assert!(!place.at(&format!("{DATA}/overlay2")).exists());
}

#[test]
fn the_advice_to_remove_data_is_given_only_where_it_deletes_nothing_else() {
    let careful = "To remove data, run: `@/app/dockerd-rootless-setuptool.sh uninstall --purge`\n";
    let usual = "To remove data, run: `@/bin/rootlesskit rm -rf @/home/.local/share/docker`\n";
    let advice = |place: &Place, words: &str| {
        place.run(&["uninstall"]).exits(0).prints(words);
    };
    let place = used();
    advice(&place, usual);
    place.write(&format!("{DATA}/precious"), "1");
    advice(&place, careful);

    own_mounts();
    let place = used();
    place.write("home/nas/precious", "1");
    let _nas = bind(&place.at("home/nas"), place.at(&format!("{DATA}/volumes/db/_data")));
    advice(&place, careful);

    let place = used();
    fs::rename(place.at(DATA), place.at("elsewhere")).expect("a directory");
    symlink(place.at("elsewhere"), place.at(DATA)).expect("a link");
    advice(&place, careful);

    let place = used();
    let user = place.process(&place.at(DATA), &["sleep", "1000"]);
    advice(&place, careful);
    drop(user);
}

#[test]
fn a_data_root_that_another_program_of_the_unit_names_is_no_data_root() {
    let place = used();
    data(&place, "backup");
    let backup = place.text("backup");
    let unit = format!(
        "[Service]\nExecStart=/d.sh --debug\nExecStopPost=/bin/backup-docker --data-root {backup}\n"
    );
    place.write("home/.config/systemd/user/docker.service", &unit);
    purge(&place).exits(0).prints("Removed @/home/.local/share/docker\n");
    assert!(place.read("backup/volumes/db/_data/x").is_some());

    // In the daemon's own command, which may go on in a second line, it is one.
    let unit = format!("[Service]\nExecStart=/d.sh --debug \\\n  --data-root {backup}\n");
    place.write("home/.config/systemd/user/docker.service", &unit);
    purge(&place).exits(0);
    assert!(place.read("backup/volumes/db/_data/x").is_none());
}

#[test]
fn a_daemon_json_that_says_nothing_stops_the_purge_before_anything_is_changed() {
    for text in ["{\"data-root\": ", "[1"] {
        let place = used();
        place.write("home/.config/docker/daemon.json", text);
        place.write("home/.config/systemd/user/docker.service", "[Unit]\n");
        purge(&place).exits(1).says("cannot parse @/home/.config/docker/daemon.json: ");
        assert!(place.read(&format!("{DATA}/volumes/db/_data/x")).is_some());
        assert!(place.read("home/.config/systemd/user/docker.service").is_some());
    }
}

#[test]
fn advice_names_no_directory_that_depends_on_where_it_is_pasted() {
    let place = used();
    place.write("home/.config/docker/daemon.json", "{\"data-root\": \"docker\"}");
    let done = place.run(&["uninstall"]);
    done.exits(0);
    assert!(!done.stdout.contains("rm -rf docker"), "{}", done.stdout);
}

#[test]
fn settings_of_a_supervised_daemon_stay_where_state_and_settings_share_a_directory() {
    let mut place = used();
    let shared = place.text("xdg");
    for variable in ["XDG_CONFIG_HOME", "XDG_STATE_HOME"] {
        place.set(variable, &shared);
    }
    for file in ["env", "notes"] {
        place.write(&format!("xdg/docker-rootless/{file}"), "precious");
    }
    for args in [&["uninstall"][..], &["uninstall", "--purge"]] {
        place.run(args).exits(0);
        for file in ["env", "notes"] {
            assert!(
                place.read(&format!("xdg/docker-rootless/{file}")).is_some(),
                "{args:?}: {file}"
            );
        }
    }
}

/// What happens while the deletion runs: the script runs in place of rootlesskit, before the first directory is deleted.
fn meanwhile(script: &str) -> Place {
    let place = used();
    for name in ["containerd/containerd.toml", "netns/x"] {
        place.write(&format!("run/docker/{name}"), "1");
    }
    place.write("run/docker.pid", "1");
    place.stub("rootlesskit", &format!("{script}\n{NAMESPACE}"));
    place
}

#[test]
fn a_daemon_that_comes_up_while_its_data_is_deleted_keeps_the_rest_and_is_told() {
    let place = meanwhile(
        "cd \"$XDG_RUNTIME_DIR/docker\"; sleep 1000 >/dev/null 2>&1 & echo $! > \"$HOME/pid\"; cd /",
    );
    let unit = "home/.config/systemd/user/docker.service";
    place.write(unit, "[Unit]\n");
    let done = purge(&place);
    let pid = place.read("home/pid").expect("the pid").trim().to_owned();
    let killed = Command::new("kill").args(["-KILL", &pid]).status().expect("kill");
    assert!(killed.success());
    done.exits(1)
        .prints("Removed @/home/.local/share/docker\n")
        .says(
            "a program started to use the data while it was being deleted, so the rest was kept:\n",
        )
        .says(&format!("sleep (pid {pid}) has its working directory at @/run/docker\n"))
        .says("systemctl --user disable docker.service");
    assert!(place.read("run/docker/netns/x").is_some() && place.read("run/docker.pid").is_some());
    assert!(place.read(unit).is_some());
}

#[test]
fn no_rootlesskit_can_start_while_the_data_is_deleted() {
    for exists in [false, true] {
        let place = meanwhile(
            "for dir in \"$XDG_RUNTIME_DIR/dockerd-rootless\" \"$HOME/state\"; do\n\
             flock -n -x \"$dir/lock\" true; echo $? >> \"$HOME/locked\"; done",
        );
        place.write(
            "home/.config/systemd/user/docker.service.d/x.conf",
            &format!(
                "[Service]\nEnvironment=DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR={}\n",
                place.text("home/state")
            ),
        );
        if exists {
            for dir in ["run/dockerd-rootless", "home/state"] {
                place.write(&format!("{dir}/lock"), "");
            }
        }
        purge(&place).exits(0);
        // Twice, for two directories: data and exec. The usual state directory goes last.
        let locked = place.read("home/locked").expect("the results");
        assert!(locked.starts_with("1\n1\n1\n1\n"), "{exists}: {locked}");
        assert!(!place.at("run/dockerd-rootless").exists(), "{exists}");
        assert_eq!(place.at("home/state").exists(), exists, "what was made for the time goes");
    }
}

#[test]
fn a_refusal_keeps_the_unit_so_that_the_next_purge_finds_its_data_root() {
    let place = Place::new();
    place.stub("rootlesskit", NAMESPACE);
    data(&place, "big/docker");
    chown(place.at("big"), Some(65534), None).expect("root");
    let path = "home/.config/systemd/user/docker.service";
    let unit = format!("[Service]\nExecStart=/d.sh --data-root={}\n", place.text("big/docker"));
    place.write(path, &unit);
    let user = place.process(&place.at("big/docker/volumes"), &["sleep", "1000"]);
    let refused = purge(&place);
    refused
        .exits(1)
        .says("data is in use")
        .says("the unit, its settings and the CLI context were kept");
    assert!(!refused.stderr.contains("disable"), "{}", refused.stderr);
    drop(user);
    assert_eq!(place.read(path).as_ref(), Some(&unit));
    assert!(!place.calls().iter().any(|call| call.contains("context rm")));
    purge(&place).exits(0).prints("Removed @/big/docker\n");
    assert!(!place.at("big/docker").exists() && place.read(path).is_none());
}

#[test]
fn the_deletion_itself_is_refused_outside_of_rootlesskits_namespace() {
    let place = used();
    let data = place.text(DATA);
    for done in [
        place.run(&["delete", "data", &data]),
        place.run_as_root(&["delete", "data", &data]),
        place.shell(&format!(
            "unshare --map-root-user @/app/dockerd-rootless-setuptool.sh delete data {data}"
        )),
    ] {
        done.exits(1).says("delete runs only inside rootlesskit's user namespace");
        assert!(place.read(&format!("{DATA}/volumes/db/_data/x")).is_some());
    }
}

#[test]
fn names_of_files_do_not_reach_the_terminal_raw() {
    let place = used();
    place.write(&format!("{DATA}/a\u{1b}[2J\n[INFO] b"), "1");
    let bytes = std::os::unix::ffi::OsStrExt::from_bytes(&b"c\xff"[..]);
    fs::write(place.at(DATA).join::<&std::ffi::OsStr>(bytes), "1").expect("a file");
    purge(&place).exits(0).says("did not create: a\\u{1b}[2J\\n[INFO] b, c\\xff\n");
}
