//! Files and contexts of the user's survive `install`, reinstalls and `uninstall`.

use std::fs;
use std::os::unix::fs::{chown, symlink};

use crate::place::{Place, context};

const UNIT: &str = "home/.config/systemd/user/docker.service";
const SOCKET: &str = "home/.config/systemd/user/docker.socket";

/// As an Ansible role writes it.
const FOREIGN: &str = "[Service]\nExecStart=@/bin/dockerd-rootless.sh -H tcp://127.0.0.1:2375\n";

fn place() -> Place {
    let place = Place::new();
    place.daemon();
    place
}

fn edit(place: &Place, file: &str, from: &str, to: &str) -> String {
    let text = place.read(file).expect("a file");
    assert!(text.contains(from), "{from} in\n{text}");
    let edited = text.replacen(from, to, 1);
    place.write(file, &edited);
    edited
}

fn edited(place: &Place) -> String {
    place.run(&["install"]).exits(0);
    edit(place, UNIT, "[Service]\n", "[Service]\nEnvironment=HTTPS_PROXY=http://proxy:3128\n")
}

/// Runs the command that a line of the tool shows for comparing, and returns what it prints.
fn compared(place: &Place, said: &str) -> String {
    let (_, command) = said.split_once("to compare it, run: ").expect("a command");
    let command = command.split_once("; to replace it").expect("its end").0;
    let output = place.shell(command);
    assert_eq!(output.code, Some(1), "diff finds differences: {output:?}");
    output.stdout
}

#[test]
fn a_unit_that_was_edited_stays_and_is_used() {
    let place = place();
    let text = edited(&place);
    let done = place.run(&["install"]);
    done.exits(0)
        .says(&format!("[WARNING] @/{UNIT} was edited after this tool wrote it and was kept; to compare it, run: "))
        .says("+ systemctl --user start docker.service\n")
        .says("+ systemctl --user enable docker.service\n")
        .prints("[INFO] Installed docker.service successfully.\n");
    assert_eq!(place.read(UNIT).as_ref(), Some(&text));
    assert!(place.read(&format!("{UNIT}.bak")).is_none());
    // Both ways of the difference, and nothing else.
    let differences = compared(&place, &done.stderr);
    let differences: Vec<_> = differences
        .lines()
        .filter(|line| line.starts_with(['-', '+']) && !line.contains("Checksum"))
        .skip(2)
        .collect();
    assert_eq!(differences, ["-Environment=HTTPS_PROXY=http://proxy:3128"]);
    assert_eq!(place.read(UNIT).as_ref(), Some(&text));

    place
        .run(&["install", "--force"])
        .exits(0)
        .says(&format!("[WARNING] Replaced @/{UNIT}; the old version is @/{UNIT}.bak\n"));
    assert_eq!(place.read(&format!("{UNIT}.bak")), Some(text));
    assert!(!place.read(UNIT).expect("a unit").contains("PROXY"));
    place.run(&["install"]).exits(0).prints(&format!("[INFO] @/{UNIT} is up to date\n"));
}

#[test]
fn a_unit_of_somebody_else_stays_and_is_used() {
    let place = place();
    place.write(UNIT, FOREIGN);
    for _ in 0..2 {
        let done = place.run(&["install"]);
        done.exits(0)
            .says(&format!("[WARNING] @/{UNIT} was not written by this tool and was kept; "))
            .says("+ systemctl --user start docker.service\n");
        assert!(compared(&place, &done.stderr).contains("+# Written by "));
        assert_eq!(place.read(UNIT).as_deref(), Some(FOREIGN));
    }
    let calls = place.calls();
    assert!(calls.contains(&"systemctl --user daemon-reload".to_owned()), "{calls:?}");
    let done = place.run(&["uninstall"]);
    done.exits(0).prints(&format!("is kept as @/{UNIT}.bak\n"));
    assert_eq!(place.read(&format!("{UNIT}.bak")).as_deref(), Some(FOREIGN));
    assert!(place.read(UNIT).is_none());
    // Settings stay whatever is purged.
    place.write("home/.config/systemd/user/docker.service.d/mine.conf", "[Service]\n");
    place.daemon_stops();
    let done = place.run(&["uninstall", "--purge"]);
    done.exits(0)
        .prints(&format!("Your own settings stay in @/{UNIT}.bak\n"))
        .prints(&format!("Your own settings stay in @/{UNIT}.d\n"));
    assert_eq!(place.read(&format!("{UNIT}.bak")).as_deref(), Some(FOREIGN));
    assert!(place.read("home/.config/systemd/user/docker.service.d/mine.conf").is_some());
}

#[test]
fn what_an_earlier_install_wrote_is_updated() {
    let mut place = place();
    place.run(&["install"]).exits(0);
    let path = format!("{}:/opt/bin:/usr/bin:/bin", place.text("bin"));
    place.set("PATH", &path);
    place.run(&["install"]).exits(0).prints(&format!("[INFO] Updated @/{UNIT}\n"));
    assert!(place.read(UNIT).expect("a unit").contains(":/opt/bin:"));
    assert!(place.read(&format!("{UNIT}.bak")).is_none());

    // By a release that wrote no checksum, with another PATH.
    let text = place.read(UNIT).expect("a unit");
    let old = text
        .replace(
            "which leaves this file alone once it is edited.",
            "which replaces it at the next install.",
        )
        .replace(
            "# Put your own settings into a drop-in instead:",
            "# Your own settings belong into a drop-in:",
        )
        .replace(":/opt/bin", "");
    let old: String = old
        .lines()
        .filter(|line| !line.contains("Checksum"))
        .map(|line| format!("{line}\n"))
        .collect();
    place.write(UNIT, &old);
    place
        .run(&["install"])
        .exits(0)
        .says(&format!("Replaced @/{UNIT}; the old version is @/{UNIT}.bak\n"));
    assert_eq!(place.read(UNIT), Some(text));
    let old = old.replace("Restart=always", "Restart=no");
    place.write(UNIT, &old);
    place.run(&["install"]).exits(0).says("was edited after this tool wrote it and was kept");
    assert_eq!(place.read(UNIT), Some(old));
}

#[test]
fn a_unit_that_is_a_link_is_written_through() {
    let place = place();
    let dotfiles = "home/dotfiles/docker.service";
    place.write("home/dotfiles/README", "");
    place.write("home/.config/systemd/user/other.service", "");
    symlink("../../../dotfiles/docker.service", place.at(UNIT)).expect("a link");
    let is_link = || fs::read_link(place.at(UNIT)).is_ok();
    place.run(&["install"]).exits(0).prints(&format!("[INFO] Creating @/{UNIT}\n"));
    assert!(is_link() && place.read(dotfiles).expect("a unit").contains("ExecStart="));
    let text = edit(&place, dotfiles, "Restart=always", "Restart=no");
    place.run(&["install"]).exits(0).says("was edited after this tool wrote it");
    assert!(is_link());
    assert_eq!(place.read(dotfiles).as_ref(), Some(&text));
    place.run(&["install", "--force"]).exits(0);
    assert!(is_link() && place.read(dotfiles).expect("a unit").contains("Restart=always"));
    assert_eq!(place.read(&format!("{UNIT}.bak")), Some(text));

    // systemctl removes a unit that is a link when it disables it.
    place.stub("systemctl", "case \" $* \" in *' disable '*) rm -f \"$HOME/.config/systemd/user/docker.service\" ;; esac");
    let text = place.read(dotfiles);
    place.daemon_stops();
    place.run(&["uninstall", "--purge"]).exits(0).prints(&format!("is kept as @/{UNIT}.bak.1\n"));
    let kept = fs::read_link(place.at(&format!("{UNIT}.bak.1"))).expect("a link");
    assert_eq!(kept.to_str(), Some("../../../dotfiles/docker.service"));
    assert_eq!(place.read(dotfiles), text);
}

#[test]
fn links_to_nowhere_and_masked_units_stop_install_before_anything_else() {
    let place = place();
    place.write("home/.config/systemd/user/other.service", "");
    symlink("/nonexistent/dotfiles/docker.service", place.at(UNIT)).expect("a link");
    place
        .run(&["install"])
        .exits(1)
        .says("[ERROR] file-blocked: ")
        .says("whose directory does not exist\n");
    fs::remove_file(place.at(UNIT)).expect("a link");
    symlink("/dev/null", place.at(UNIT)).expect("a link");
    place.run(&["install"]).exits(1).says("systemctl --user unmask docker.service");
    let calls = place.calls().join("\n");
    assert!(!calls.contains("start") && !calls.contains("context"), "{calls}");
    place.run(&["uninstall"]).exits(0);
    assert!(fs::read_link(place.at(UNIT)).is_ok(), "it stays masked");
}

#[test]
fn a_socket_unit_of_the_users_stays() {
    let place = place();
    place.stub(
        "systemctl",
        "case \" $* \" in *' is-active '*|*' is-enabled '*) exit 3 ;; *' --full '*) ;; *' status '*) exit 3 ;; esac",
    );
    place.run(&["install", "--socket"]).exits(0);
    let text = edit(&place, SOCKET, "SocketMode=0660", "SocketMode=0600");
    let done = place.run(&["install", "--socket"]);
    done.exits(0)
        .says(&format!("[WARNING] @/{SOCKET} was edited after this tool wrote it and was kept"));
    assert!(compared(&place, &done.stderr).contains("-SocketMode=0600\n+SocketMode=0660\n"));
    assert_eq!(place.read(SOCKET).as_ref(), Some(&text));
    place.run(&["install"]).exits(0).says("was kept; install --socket uses it");
    assert_eq!(place.read(SOCKET).as_ref(), Some(&text));
    // A service that does not take the socket over would listen in its place.
    place.write(UNIT, FOREIGN);
    place.run(&["install", "--socket"]).exits(1).says("hint: add `-H fd://` to its ExecStart=");
    place.write(UNIT, &FOREIGN.replace("tcp://127.0.0.1:2375", "fd://"));
    place.run(&["install", "--socket"]).exits(0);
    place.run(&["uninstall"]).exits(0).prints(&format!("is kept as @/{SOCKET}.bak\n"));
    assert_eq!(place.read(&format!("{SOCKET}.bak")), Some(text));
}

#[test]
fn check_says_beforehand_what_install_would_do() {
    let mut place = place();
    edited(&place);
    place.write(SOCKET, "[Socket]\n");
    let done = place.run(&["check", "--json"]);
    done.exits(0);
    let value: serde_json::Value = serde_json::from_str(&done.stdout).expect("JSON");
    let files = value["files"].as_array().expect("a list");
    let seen: Vec<_> =
        files.iter().map(|file| (&file["path"], &file["state"], &file["install"])).collect();
    let (unit, socket) = (format!("@/{UNIT}"), format!("@/{SOCKET}"));
    assert_eq!(
        seen.iter()
            .map(|(path, state, fate)| (path.as_str(), state.as_str(), fate.as_str()))
            .collect::<Vec<_>>(),
        [
            (Some(&*unit), Some("edited"), Some("keep")),
            (Some(&*socket), Some("foreign"), Some("keep")),
        ]
    );
    let findings = value["findings"].as_array().expect("a list");
    for code in ["file-edited", "file-foreign"] {
        let finding = findings.iter().find(|finding| finding["code"] == code).expect("a finding");
        assert_eq!(finding["severity"], "advisory");
    }
    let before = place.read(UNIT);
    let done = place.run(&["check"]);
    done.exits(0).prints("[INFO] file-edited: ").prints("    fix: compare the versions: ");
    let forced = place.run(&["check", "--force"]);
    forced.exits(0).prints(&format!("[INFO] install would replace @/{UNIT} and keep a copy\n"));
    assert_eq!(place.read(UNIT), before);

    place.run(&["install", "--force"]).exits(0);
    place.set("PATH", &format!("{}:/opt/bin:/usr/bin:/bin", place.text("bin")));
    place.run(&["check"]).exits(0).prints(&format!("[INFO] install would update @/{UNIT}\n"));
}

#[test]
fn what_would_be_written_can_be_printed() {
    let place = place();
    let done = place.run(&["install", &format!("--print={}", place.text(UNIT))]);
    done.exits(0);
    assert!(place.read(UNIT).is_none() && !place.calls().join("\n").contains("start"));
    place.run(&["install"]).exits(0);
    assert_eq!(place.read(UNIT).map(|text| text.replace(&place.text(""), "@/")), Some(done.stdout));
    let other = format!("--print={}", place.text("home/x"));
    place
        .run(&["install", &other])
        .exits(1)
        .says(&format!("hint: the files it writes: @/{UNIT}\n"));
    place.run(&["check", &other]).exits(1).says("--print is only valid with install or apparmor");
}

#[test]
fn a_context_for_another_daemon_stays() {
    let place = place();
    for (host, description) in [
        ("ssh://build", "Rootless mode"),
        ("unix:///run/user/1/docker.sock", "of my colleague"),
        ("unix:///proc/self/docker.sock", ""),
    ] {
        place.stub("docker", &context(host, description));
        let before = place.calls().len();
        place.run(&["install"]).exits(0).says(&format!(
            "[WARNING] CLI context \"rootless\" points to another daemon ({host}) and was kept; \
             to use this daemon, set DOCKER_HOST=unix://@/run/docker.sock"
        ));
        place
            .run(&["uninstall"])
            .exits(0)
            .prints(&format!("points to another daemon ({host}) and was kept\n"));
        let calls = place.calls().split_off(before).join("\n");
        for verb in ["context update", "context rm", "context use", "context create"] {
            assert!(!calls.contains(verb), "{verb} in\n{calls}");
        }
    }
    let before = place.calls().len();
    place
        .run(&["install", "--force"])
        .exits(0)
        .says("exported the old one to @/home/.docker/rootless.dockercontext.bak\n");
    let calls = place.calls().split_off(before).join("\n");
    let export = calls.find("context export rootless @/home/.docker/rootless.dockercontext.bak");
    let update = calls.find("context update rootless --docker host=unix://@/run/docker.sock");
    assert!(export.is_some() && export < update, "{calls}");
}

#[test]
fn a_context_of_an_earlier_installation_is_updated_and_removed() {
    let place = place();
    place.stub("docker", &context("unix:///run/user/1/docker.sock", "Rootless mode"));
    let done = place.run(&["install"]);
    done.exits(0)
        .prints("[INFO] Updating CLI context \"rootless\" (was unix:///run/user/1/docker.sock)\n");
    let calls = place.calls().join("\n");
    assert!(
        calls.contains("context update rootless --docker host=unix://@/run/docker.sock"),
        "{calls}"
    );
    place.run(&["uninstall"]).exits(0).prints("[INFO] Deleted CLI context \"rootless\"\n");
}

const SCRIPT: &str = "home/.config/docker-rootless/run";
const RC: &str = "home/.config/rc/init.d/docker";

#[test]
fn scripts_of_supervisors_that_were_edited_stay() {
    let place = place();
    place.stub("systemctl", "echo 'Failed to connect to bus' >&2; exit 1");
    place.stub("rc-service", "case \"$*\" in --version) echo 'rc-service (OpenRC) 0.62.6' ;; esac");
    place.stub("rc-update", "");
    place.stub("openrc-run", "");
    place.run(&["install", "--supervise=openrc"]).exits(0);
    place
        .run(&["install", "--supervise=openrc"])
        .exits(0)
        .prints(&format!("[INFO] @/{RC} is up to date\n"));
    let script = edit(&place, SCRIPT, "set -a\n", "export GODEBUG=x\nset -a\n");
    let service =
        edit(&place, RC, "retry=TERM/150/KILL/5\n", "retry=TERM/300/KILL/5\nrc_need=net\n");
    for file in [RC, SCRIPT] {
        chown(place.at(file), Some(65534), Some(65534)).expect("root");
    }
    let done = place.run(&["install", "--supervise=openrc"]);
    done.exits(0).says(&format!("@/{SCRIPT} was edited")).says(&format!("@/{RC} was edited"));
    for (file, word) in [(SCRIPT, "-export GODEBUG=x\n"), (RC, "-rc_need=net\n")] {
        let line = done
            .stderr
            .lines()
            .find(|line| line.contains(&format!("@/{file} was")))
            .expect("a line");
        assert!(compared(&place, line).contains(word));
    }
    assert_eq!(
        (place.read(SCRIPT).as_ref(), place.read(RC).as_ref()),
        (Some(&script), Some(&service))
    );
    place.run(&["check"]).prints(&format!("[INFO] file-edited: @/{RC} was edited"));

    place.daemon_stops();
    let done = place.run(&["uninstall", "--purge"]);
    done.exits(0)
        .prints(&format!("is kept as @/{RC}.bak\n"))
        .prints(&format!("is kept as @/{SCRIPT}.bak\n"));
    assert_eq!(place.read(&format!("{SCRIPT}.bak")), Some(script));
    assert_eq!(place.read(&format!("{RC}.bak")), Some(service));
    // OpenRC takes whatever can be run for a service.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(place.at(&format!("{RC}.bak"))).expect("a copy").permissions().mode();
    assert_eq!(mode & 0o111, 0);
}
