//! Subordinate ids and the programs that map them.

use std::path::Path;

use hostenv::shellwords::quoted;
use idmap::diagnose::{self, Obstacle};
use idmap::outer::Outer;
use idmap::subid::USUAL_COUNT;
use idmap::{Kind, Range};

use super::{Finding, Wish, remount};
use crate::distro::{Family, Package};
use crate::facts::Facts;
use crate::remedy::Remedy;

/// Where useradd(8) starts to give out subordinate ids.
const USUAL_FIRST: u32 = 100_000;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    programs(facts, findings);
    if let Some(path) = &facts.ids.unreadable {
        let shown = path.display();
        findings.push(
            Finding::fatal(
                "subid-unreadable",
                format!("{} cannot read {shown}", facts.account.name),
                "rootlesskit reads the user's subordinate IDs from this file",
            )
            .admin(
                &format!("make {shown} readable for everyone (the usual default)"),
                [format!("chmod 0644 {}", quoted(path))],
            ),
        );
        return;
    }
    if let Some(message) = &facts.ids.malformed {
        let (seen, hint) = message.split_once("\nhint: ").unwrap_or((message, "correct the line"));
        findings.push(
            Finding::fatal(
                "subid-malformed",
                seen,
                "rootlesskit stops at a line that it cannot parse",
            )
            .fix(hint),
        );
        return;
    }
    ranges(facts, findings);
    for overlap in &facts.ids.overlaps {
        let file = overlap.kind.subid();
        let ours = another(facts, overlap.kind, &overlap.ours);
        let remedy = if overlap.is_account {
            let words =
                || Remedy::said(format!("as root, give this user another range in /etc/{file}"));
            ours.unwrap_or_else(words)
        } else {
            let theirs = format!("as root, give {} another range in /etc/{file}", overlap.owner);
            let mut ours = ours.unwrap_or_default();
            if let Some(first) = ours.said.first_mut() {
                first.insert_str(0, "or ");
            }
            Remedy::said(theirs).and(ours)
        };
        findings.push(
            Finding::advisory(
                "subid-overlap",
                format!(
                    "/etc/{file}: this user's range {} overlaps {} of {}",
                    overlap.ours, overlap.theirs, overlap.owner
                ),
                "the two users' containers can read and write each other's files",
            )
            .remedy(remedy),
        );
    }
}

/// The commands that exchange a range for one that nobody has; `None` if there are no such commands here.
fn another(facts: &Facts, kind: Kind, ours: &str) -> Option<Remedy> {
    let free = facts.ids.free.filter(|_| facts.ids.usermod && facts.account.local)?;
    let (name, ids) = (quoted(&facts.account.name), format!("{}s", kind.subid()));
    // What containers wrote keeps its ids, which no namespace of the user has any more.
    let change = format!("sudo usermod --del-{ids} {ours} --add-{ids} {free} {name}");
    Some(if facts.storage.data_root.is_some() {
        Remedy::said(format!(
            "change {name}'s range. You lose all images, containers and volumes. Delete them before the change, because \
             only root can delete them afterwards: dockerd-rootless-setuptool.sh uninstall --purge",
        ))
        .and(Remedy::said(format!("then change the range: {change}")))
    } else {
        Remedy::said(format!("change {name}'s range: {change}"))
    })
}

fn programs(facts: &Facts, findings: &mut Vec<Finding>) {
    let mut missing = Vec::new();
    for tool in &facts.ids.tools {
        let name = tool.kind.tool();
        let Some((path, power)) = &tool.found else {
            missing.push(name);
            continue;
        };
        let Some(obstacle) = diagnose::obstacle(tool.kind, *power) else { continue };
        // rootlesskit tried it: nothing that could be seen here counts against that.
        if !facts.works(crate::probe::Probe::Namespaces) {
            findings.push(obstructed(tool.kind, path, *power, &obstacle));
        }
    }
    if !missing.is_empty() {
        findings.push(
            Finding::fatal(
                "newuidmap-missing",
                format!("not found in PATH: {}", missing.join(" and ")),
                "newuidmap and newgidmap map the user's subordinate IDs into the containers' user namespace",
            )
            .remedy(facts.distro.install(Package::Uidmap, "install newuidmap and newgidmap")),
        );
    }
}

fn obstructed(kind: Kind, path: &Path, power: diagnose::Facts, obstacle: &Obstacle) -> Finding {
    let name = kind.tool();
    let word = quoted(path);
    let [chmod, setcap] = diagnose::capable(kind, &word);
    let powers = format!("give {name} the privileges that it needs");
    let (code, remedy) = match obstacle {
        Obstacle::NoNewPrivs => (
            "no-new-privs",
            Remedy::said("remove NoNewPrivileges= from the unit or the sandbox that this session runs in").and(Remedy::said(
                "if this machine is a container, start it without --security-opt no-new-privileges; in Kubernetes, set \
                 allowPrivilegeEscalation: true",
            )),
        ),
        Obstacle::Nosuid => (
            "newuidmap-nosuid",
            Remedy::said(format!(
                "remount its file system without nosuid: {}",
                remount("suid", path)
            ))
            .and(Remedy::said(format!(
                "or install {name} on a file system without nosuid, in a directory that comes first in PATH"
            ))),
        ),
        Obstacle::Powerless if power.can_setcap() => {
            ("newuidmap-powerless", Remedy::admin(&powers, [setcap]))
        }
        // Without CAP_SETFCAP not even root can do it here.
        Obstacle::Powerless => (
            "newuidmap-powerless",
            Remedy::said(format!("add this to the image's Dockerfile: RUN {setcap}")),
        ),
        Obstacle::Both => ("newuidmap-both", Remedy::admin(&powers, [chmod])),
        Obstacle::Setuid(_) if power.can_setcap() => {
            ("newuidmap-setuid", Remedy::admin(&powers, [chmod, setcap]))
        }
        Obstacle::Setuid(_) => (
            "newuidmap-setuid",
            Remedy::said(format!("add this to the image's Dockerfile: RUN {chmod} && {setcap}")),
        ),
        Obstacle::Container(_) => (
            "container-caps",
            Remedy::said("in Docker and Podman, start this container with --cap-add SETUID --cap-add SETGID").and(
                Remedy::said(
                    "in Kubernetes, set securityContext: {capabilities: {add: [SETUID, SETGID]}, \
                     allowPrivilegeEscalation: true}",
                ),
            ),
        ),
    };
    let seen = obstacle.what(path);
    Finding::fatal(
        code,
        seen,
        "the kernel allows only a privileged program to map more than one ID",
    )
    .remedy(remedy)
}

/// Ranges that this container does not have, whatever the files say. True if there are any.
fn outside(facts: &Facts, findings: &mut Vec<Finding>) -> bool {
    let outside = &facts.ids.outside;
    let Some((kind, range)) =
        outside.first().filter(|_| !facts.works(crate::probe::Probe::Namespaces))
    else {
        return false;
    };
    let (name, file) = (&facts.account.name, kind.subid());
    let outer = outer(facts, *kind);
    let seen = format!(
        "/etc/{file} gives {name} the IDs {range}, but this container has only {} (/proc/self/{})",
        outer.describe(),
        kind.map_file()
    );
    let mut remedy = Remedy::default();
    if let Some(free) = facts.ids.free {
        let word = quoted(name);
        let comment = format!("give {name} IDs that this container has");
        remedy = if facts.ids.usermod && facts.account.local {
            let change = |kind: Kind, ids: &str| {
                let gone = outside.iter().filter(|(of, _)| *of == kind);
                let gone: String = gone.map(|(_, range)| format!(" --del-{ids} {range}")).collect();
                if gone.is_empty() { gone } else { format!("{gone} --add-{ids} {free}") }
            };
            let options = change(Kind::Uid, "subuids") + &change(Kind::Gid, "subgids");
            Remedy::admin(&comment, [format!("usermod{options} {word}")])
        } else {
            Remedy::said(format!(
                "as root, in /etc/subuid and /etc/subgid, replace the entries of {name} with {}:{}:{}",
                name,
                free.start(),
                free.count()
            ))
        };
    }
    findings.push(
        Finding::fatal(
            "subid-outside",
            seen,
            "regardless of capabilities, the kernel maps only IDs that the container itself has (\"write to uid_map \
             failed: Operation not permitted\")",
        )
        .remedy(remedy)
        .fix(higher(&outer.widening(*range))),
    );
    true
}

fn outer(facts: &Facts, kind: Kind) -> &Outer {
    let [uids, gids] = &facts.ids.outer;
    if kind == Kind::Uid { uids } else { gids }
}

/// What is needed only by images with more users than a short range has.
fn higher(widening: &str) -> String {
    format!("or, if images need higher IDs: {widening}")
}

/// Lines for the host where a container has too few ids for the usual number.
fn widened(facts: &Facts) -> Option<String> {
    let outer = outer(facts, Kind::Uid);
    let short = facts.ids.free.is_none_or(|free| free.count() < USUAL_COUNT);
    match Range::new(USUAL_FIRST, USUAL_COUNT) {
        Some(usual) if short && !outer.is_whole() => Some(outer.widening(usual)),
        _ => None,
    }
}

fn ranges(facts: &Facts, findings: &mut Vec<Finding>) {
    if outside(facts, findings) {
        return;
    }
    let few = |count: u64| count < u64::from(USUAL_COUNT);
    let (uids, gids) = (facts.ids.uids, facts.ids.gids);
    if !few(uids) && !few(gids) {
        return;
    }
    let name = &facts.account.name;
    let seen = format!(
        "{name} (UID {}) has {uids} subordinate UIDs and {gids} subordinate GIDs",
        facts.account.uid
    );
    let remedy = remedy(facts, few(uids), few(gids));
    findings.push(if uids == 0 || gids == 0 {
        Finding::fatal(
            "subid-missing",
            seen,
            "containers need subordinate IDs (\"No subuid ranges found for user\")",
        )
        .remedy(remedy)
    } else {
        Finding::class(
            "subid-few",
            seen,
            "images that use more IDs cannot be unpacked (\"lchown …: invalid argument\"); the usual count is 65536",
        )
        .remedy(remedy)
    });
}

fn remedy(facts: &Facts, uids: bool, gids: bool) -> Remedy {
    let name = &facts.account.name;
    // Where a container has few, and the user has some of them, one more range is too short to help.
    let free = facts
        .ids
        .free
        .filter(|free| free.count() >= USUAL_COUNT || facts.ids.uids.min(facts.ids.gids) == 0);
    let Some(range) = free else {
        let full = "no free range is left: remove or shorten the range of another user";
        return Remedy::said(widened(facts).unwrap_or_else(|| full.to_owned()));
    };
    let widened = widened(facts).map(|text| Remedy::said(higher(&text))).unwrap_or_default();
    let comment = format!("give {name} subordinate IDs that no other user has");
    if facts.distro.family == Family::Nix {
        let (start, count) = (range.start(), range.count());
        let line = |kind: &str, first: &str| {
            Remedy::said(format!(
                "in configuration.nix, add {{ {first} = {start}; count = {count}; }} to users.users.{name}.{kind}"
            ))
        };
        return line("subUidRanges", "startUid").and(line("subGidRanges", "startGid"));
    }
    if facts.ids.usermod && facts.account.local {
        let mut command = "usermod".to_owned();
        if uids {
            command.push_str(&format!(" --add-subuids {range}"));
        }
        if gids {
            command.push_str(&format!(" --add-subgids {range}"));
        }
        return Remedy::admin(&comment, [format!("{command} {}", quoted(name))]).and(widened);
    }
    // usermod knows local users only, and busybox's has no such options.
    let line = quoted(format!("{name}:{}:{}", range.start(), range.count()));
    let files = [(uids, "subuid"), (gids, "subgid")].into_iter().filter(|(wanted, _)| *wanted);
    Remedy::admin(&comment, files.map(|(_, file)| format!("printf '%s\\n' {line} >> /etc/{file}")))
        .and(widened)
}
