use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use doctor::apparmor::Profile;
use doctor::place::World;

use crate::apparmor;
use crate::ui::Ui;

const RESTRICT: &str = "proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// A host in a directory.
struct Host(tempfile::TempDir);

impl Host {
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn program(&self, name: &str) {
        self.write(name, "#!/bin/sh\n");
        self.mode(&self.at(name), 0o755);
    }

    fn mode(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.at(name)).unwrap();
    }
}

/// A host that restricts, seen by root through sudo: the tool and rootlesskit lie in the user's ~/bin, which is not in
/// PATH. The stub of apparmor_parser writes its arguments down.
fn host() -> (Host, World) {
    let host = Host(tempfile::tempdir().unwrap());
    host.write(RESTRICT, "1\n");
    host.program("home/bin/rootlesskit");
    fs::create_dir_all(host.at("etc/apparmor.d")).unwrap();
    let world = World {
        root: host.at(""),
        env: [("PATH", "/nonexistent"), ("LOG", host.at("parser").to_str().unwrap())]
            .into_iter()
            .collect(),
        uid: 0,
        own_dir: Some(host.at("home/bin")),
    };
    parser(&host, "printf '%s\\n' \"$*\" >> \"$LOG\"");
    (host, world)
}

fn parser(host: &Host, line: &str) {
    host.write("sbin/apparmor_parser", &format!("#!/bin/sh\n{line}\n"));
    host.mode(&host.at("sbin/apparmor_parser"), 0o755);
}

fn profile(host: &Host, program: &str) -> Profile {
    Profile::of(&host.at(program)).unwrap()
}

fn run(world: &World, named: Option<&str>, force: bool) -> Result<(), (String, u8)> {
    let named = named.map(std::ffi::OsStr::new);
    apparmor::run(&mut Ui::silent(), world, named, force, false).map_err(|f| (f.text, f.code))
}

#[test]
fn root_writes_and_loads_the_profile_for_the_users_bin() {
    let (host, world) = host();
    let wanted = profile(&host, "home/bin/rootlesskit");
    run(&world, None, false).unwrap();
    let file = wanted.file(&world);
    let text = || fs::read_to_string(&file.path).unwrap();
    assert_eq!(text(), file.text);
    let loaded = || fs::read_to_string(host.at("parser")).unwrap();
    assert_eq!(loaded(), format!("--replace {}\n", file.path.display()));
    // Again: the file is up to date, and it is loaded in case it was not.
    run(&world, None, false).unwrap();
    assert_eq!(loaded().lines().count(), 2);
    // A release before wrote no checksum.
    fs::write(&file.path, &wanted.text).unwrap();
    run(&world, None, false).unwrap();
    assert_eq!(text(), file.text);
}

#[test]
fn a_profile_of_the_administrators_stays_and_is_loaded() {
    let (host, world) = host();
    let file = profile(&host, "home/bin/rootlesskit").file(&world);
    let text = || fs::read_to_string(&file.path).unwrap();
    run(&world, None, false).unwrap();
    for other in
        ["profile other {}\n".to_owned(), text().replace("  userns,", "  userns,\n  mount,")]
    {
        fs::write(&file.path, &other).unwrap();
        run(&world, None, false).unwrap();
        assert_eq!(text(), other);
        fs::remove_file(host.at("parser")).unwrap();
        run(&world, None, true).unwrap();
        assert_eq!(text(), file.text);
        assert!(host.at("parser").exists(), "it is loaded");
        // AppArmor loads no file whose name ends so.
        let copies = ["orig", "1.orig"].map(|end| format!("{}.{end}", file.path.display()));
        assert!(copies.iter().any(|copy| fs::read_to_string(copy).is_ok_and(|text| text == other)));
    }
}

#[test]
fn a_program_can_be_named_and_links_are_followed() {
    let (host, world) = host();
    host.program("opt/kit");
    host.link("home/kit", host.at("opt/kit").to_str().unwrap());
    run(&world, host.at("home/kit").to_str(), false).unwrap();
    assert!(profile(&host, "opt/kit").file(&world).path.exists());
    let (text, _) = run(&world, Some("/nonexistent/kit"), false).unwrap_err();
    assert!(text.contains("/nonexistent/kit is not a file"), "{text}");
}

#[test]
fn nothing_is_written_without_need_or_without_root() {
    let (host, mut world) = host();
    let files = || fs::read_dir(host.at("etc/apparmor.d")).unwrap().count();
    world.uid = 1000;
    run(&world, None, true).unwrap();
    assert_eq!(files(), 0);
    world.uid = 0;
    host.write(RESTRICT, "0\n");
    run(&world, None, false).unwrap();
    assert_eq!(files(), 0);
    world.own_dir = None;
    let (text, _) = run(&world, None, false).unwrap_err();
    assert!(text.contains("apparmor /home/USER/bin/rootlesskit"), "{text}");
}

#[test]
fn what_apparmor_refuses_is_an_error() {
    let (host, world) = host();
    parser(&host, "exit 3");
    assert_eq!(run(&world, None, false).unwrap_err().1, 3);
    fs::remove_dir_all(host.at("etc/apparmor.d")).unwrap();
    let (text, _) = run(&world, None, false).unwrap_err();
    assert!(text.contains("package apparmor"), "{text}");
}
