//! Subordinate ids and the programs that map them.

use idmap::{Kind, diagnose, subid::USUAL_COUNT};

use super::{Finding, Remedy, Wish, quoted};
use crate::distro::{Family, Package};
use crate::facts::Facts;

pub(super) fn examine(facts: &Facts, _: Wish, findings: &mut Vec<Finding>) {
    programs(facts, findings);
    if let Some(path) = &facts.ids.unreadable {
        let shown = path.display();
        findings.push(
            Finding::fatal(
                "subid-unreadable",
                format!("{} may not read {shown}", facts.account.name),
                "rootlesskit looks there for the subordinate ids of the user",
            )
            .remedy(Remedy::admin(
                &format!("let everybody read {shown}, as is usual"),
                [format!("chmod 0644 {}", quoted(&path.to_string_lossy()))],
            )),
        );
        return;
    }
    if let Some(message) = &facts.ids.malformed {
        let (seen, hint) = message.split_once("\nhint: ").unwrap_or((message, "correct the line"));
        findings.push(
            Finding::fatal(
                "subid-malformed",
                seen,
                "rootlesskit stops at a line it does not understand",
            )
            .remedy(Remedy::said(hint)),
        );
        return;
    }
    ranges(facts, findings);
    for overlap in &facts.ids.overlaps {
        let file = overlap.kind.subid();
        findings.push(
            Finding::advisory(
                "subid-overlap",
                format!(
                    "/etc/{file}: the range {} of this user shares ids with {} of {}",
                    overlap.ours, overlap.theirs, overlap.owner
                ),
                "containers of both users can read and write each other's files",
            )
            .remedy(Remedy::said(format!("give one of the users another range in /etc/{file}")))
            .remedy(another(facts, overlap.kind, &overlap.ours)),
        );
    }
}

/// The command that exchanges a range for one that nobody has.
fn another(facts: &Facts, kind: Kind, ours: &str) -> Remedy {
    let Some(free) = facts.ids.free.filter(|_| facts.ids.usermod && facts.account.local) else {
        return Remedy::default();
    };
    let (name, ids) = (quoted(&facts.account.name), format!("{}s", kind.subid()));
    // What containers wrote keeps its ids, which no namespace of the user has any more.
    let delete = facts.storage.data_root.as_deref().map(|dir| {
        let dir = quoted(&dir.to_string_lossy());
        format!("stop the daemon and delete its data first (`rootlesskit rm -rf {dir}`): afterwards only root can; then ")
    });
    Remedy::said(format!(
        "for this user: {}sudo usermod --del-{ids} {ours} --add-{ids} {free} {name}",
        delete.unwrap_or_default()
    ))
}

fn programs(facts: &Facts, findings: &mut Vec<Finding>) {
    let mut missing = Vec::new();
    for tool in &facts.ids.tools {
        let name = tool.kind.tool();
        let Some((path, power)) = &tool.found else {
            missing.push(name);
            continue;
        };
        let harmless = power.root || (power.setuid || power.file_caps) && !power.nosuid;
        // rootlesskit tried it: nothing that could be seen here counts against that.
        if (harmless && !power.no_new_privs) || facts.works(crate::probe::Probe::Namespaces) {
            continue;
        }
        let shown = path.display();
        let code = if power.no_new_privs {
            "no-new-privs"
        } else if power.nosuid {
            "newuidmap-nosuid"
        } else {
            "newuidmap-powerless"
        };
        let seen = diagnose::hint(tool.kind, path, "", *power);
        let cap = if tool.kind == Kind::Uid { "cap_setuid" } else { "cap_setgid" };
        let remedy = if code == "newuidmap-powerless" {
            let path = quoted(&path.to_string_lossy());
            Remedy::admin(&format!("let {name} do its work"), [format!("setcap {cap}=ep {path}")])
        } else {
            Remedy::said(format!("{shown} has to gain privileges when this user runs it"))
        };
        findings.push(
            Finding::fatal(code, seen, "the kernel lets only a privileged program map several ids")
                .remedy(remedy),
        );
    }
    if !missing.is_empty() {
        findings.push(
            Finding::fatal(
                "newuidmap-missing",
                format!("{} not in PATH", missing.join(" and ")),
                "they map the user's subordinate ids into the namespace of the containers",
            )
            .remedy(facts.distro.install(Package::Uidmap, "install newuidmap and newgidmap")),
        );
    }
}

fn ranges(facts: &Facts, findings: &mut Vec<Finding>) {
    let few = |count: u64| count < u64::from(USUAL_COUNT);
    let (uids, gids) = (facts.ids.uids, facts.ids.gids);
    if !few(uids) && !few(gids) {
        return;
    }
    let name = &facts.account.name;
    let seen = format!(
        "{name} (uid {}) has {uids} subordinate uids and {gids} subordinate gids",
        facts.account.uid
    );
    let remedy = remedy(facts, few(uids), few(gids));
    findings.push(if uids == 0 || gids == 0 {
        Finding::fatal(
            "subid-missing",
            seen,
            "containers need ids of their own (\"No subuid ranges found for user\")",
        )
        .remedy(remedy)
    } else {
        Finding::class(
            "subid-few",
            seen,
            "images with files of other ids cannot be unpacked (\"lchown …: invalid argument\"); 65536 are usual",
        )
        .remedy(remedy)
    });
}

fn remedy(facts: &Facts, uids: bool, gids: bool) -> Remedy {
    let name = &facts.account.name;
    let Some(range) = facts.ids.free else {
        return Remedy::said("all ids are given away: take a range from another user");
    };
    let comment = format!("give {name} subordinate ids that nobody has");
    if facts.distro.family == Family::Nix {
        let (start, count) = (range.start(), range.count());
        let line = |kind: &str, first: &str| {
            Remedy::said(format!(
                "in configuration.nix: users.users.{name}.{kind} = [ {{ {first} = {start}; count = {count}; }} ];"
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
        return Remedy::admin(&comment, [format!("{command} {}", quoted(name))]);
    }
    // usermod knows local users only, and busybox's has no such options.
    let line = quoted(&format!("{name}:{}:{}", range.start(), range.count()));
    let files = [(uids, "subuid"), (gids, "subgid")].into_iter().filter(|(wanted, _)| *wanted);
    Remedy::admin(&comment, files.map(|(_, file)| format!("printf '%s\\n' {line} >> /etc/{file}")))
}
