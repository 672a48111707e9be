use super::Severity::{Advisory, Class, Fatal};
use super::host::Host;
use super::session::installed;
use super::{Case, INSTALL, all, case};

const UNIT: &str = "home/.config/systemd/user/docker.service";

/// As an Ansible role or cloud-init writes it.
const FOREIGN: &str = "[Service]\nExecStart=/usr/bin/dockerd-rootless.sh --debug\n";

/// An installation whose unit was edited in place.
fn edited(host: &Host) {
    installed(host, &host.at("bin/dockerd-rootless.sh"));
    let text = std::fs::read_to_string(host.at(UNIT)).expect("a unit");
    host.write(
        UNIT,
        &text.replace("[Service]\n", "[Service]\nEnvironment=HTTPS_PROXY=http://p:3128\n"),
    );
}

#[test]
fn situations_of_files_of_an_earlier_installation() {
    all(&files_of_an_earlier_installation());
}

pub(super) fn files_of_an_earlier_installation() -> Vec<Case> {
    vec![
        case("the user edited the unit", Advisory, "file-edited daemon-stopped", "--print=", |h| {
            edited(h);
        }),
        case(
            "this tool did not write the unit",
            Advisory,
            "file-foreign daemon-stopped",
            " | diff -u ",
            |h| {
                h.write(UNIT, FOREIGN.replace("/usr", &h.at("").to_string_lossy()).as_str());
            },
        ),
        case(
            "this tool did not write docker.socket",
            Advisory,
            "file-foreign",
            "install --socket --print=",
            |h| {
                h.write("home/.config/systemd/user/docker.socket", "[Socket]\n");
            },
        ),
        case(
            "this tool did not write the script of install --supervise",
            Advisory,
            "file-foreign no-systemd",
            "/docker-rootless/env, which install does not change",
            |h| {
                h.without_systemd();
                h.write("home/.config/docker-rootless/supervisor", "plain /nowhere\n");
                h.write("home/.config/docker-rootless/run", "#!/bin/sh\n");
            },
        ),
        case(
            "the unit is masked",
            Class,
            "unit-masked",
            "systemctl --user unmask docker.service",
            |h| {
                h.write(UNIT, "");
            },
        ),
        case("the unit is masked, before an installation", Fatal, "unit-masked", "unmask", |h| {
            h.write("home/.config/systemd/user/x", "");
            h.link(UNIT, "/dev/null");
        })
        .wish(INSTALL),
        case("the unit's path is a directory", Fatal, "file-blocked", "move it away", |h| {
            h.write(&format!("{UNIT}/x"), "");
        })
        .wish(INSTALL),
        case(
            "the unit is a link into a directory that does not exist",
            Class,
            "file-blocked",
            "remove the link",
            |h| {
                h.write("home/.config/systemd/user/x", "");
                h.link(UNIT, "/nonexistent/dotfiles/docker.service");
            },
        ),
        case(
            "the unit is a link into a dotfiles directory",
            Advisory,
            "daemon-stopped",
            "start",
            |h| {
                h.write("home/dotfiles/x", "");
                installed(h, &h.at("bin/dockerd-rootless.sh"));
                std::fs::rename(h.at(UNIT), h.at("home/dotfiles/docker.service")).expect("a unit");
                h.link(UNIT, "../../../dotfiles/docker.service");
            },
        ),
    ]
}
