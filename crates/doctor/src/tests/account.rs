//! Whose files these are: what the user changes, what root does, and what is left alone.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::host::Host;
use crate::facts::{Closed, Unusable, WhyClosed};
use crate::findings::{Wish, diagnose};

/// Whatever is proposed for a directory that lies elsewhere would take it from others.
#[test]
fn only_directories_below_home_are_given_back() {
    let mut host = Host::healthy();
    // Nobody may write there, not even root.
    host.set("XDG_CONFIG_HOME", "/proc/nowhere/config");
    host.set("DOCKER_CONFIG", "/proc/nowhere/docker");
    let facts = host.facts();
    assert!(facts.account.closed.is_empty(), "{:?}", facts.account.closed);
    let closed = |host: &Host| host.facts().account.closed;
    let kernel = |dir: &str, why| Closed { dir: dir.into(), real: "/proc/sys/kernel".into(), why };
    host.set("HOME", "/proc");
    host.set("XDG_CONFIG_HOME", "/proc/sys/kernel");
    assert_eq!(closed(&host), [kernel("/proc/sys/kernel", WhyClosed::Foreign)]);
    // It belongs to root.
    host.world.uid = 0;
    assert_eq!(closed(&host), [kernel("/proc/sys/kernel", WhyClosed::Mode)]);
}

#[test]
fn a_link_out_of_home_gives_nothing_away() {
    let mut host = Host::healthy();
    host.link("home/.config", "/proc/sys/kernel");
    let real = PathBuf::from("/proc/sys/kernel");
    let closed = |host: &Host| host.facts().account.closed;
    let dir = host.at("home/.config");
    assert_eq!(closed(&host), [Closed { dir, real: real.clone(), why: WhyClosed::Outside }]);
    // A home may have another name itself.
    host.link("alias", "/proc");
    let (home, dir) = (host.at("alias"), host.at("alias/sys/kernel"));
    host.set("HOME", home.to_str().expect("a path"));
    host.set("XDG_CONFIG_HOME", dir.to_str().expect("a path"));
    assert_eq!(closed(&host), [Closed { dir, real, why: WhyClosed::Foreign }]);
}

#[test]
fn who_can_make_a_program_executable() {
    for own in [true, false] {
        let mut host = Host::healthy();
        let file = host.at("bin/rootlesskit");
        host.mode(&file, 0o644);
        let owner = std::fs::metadata(&file).expect("metadata").uid();
        host.world.uid = if own { owner } else { owner + 1 };
        let tools = host.facts().tools;
        let expected = Unusable { file, noexec: false, own };
        assert_eq!(tools.unusable.get("rootlesskit"), Some(&expected));
    }
    let host = Host::healthy();
    host.mode(&host.at("bin/rootlesskit"), 0o644);
    for own in [true, false] {
        let mut facts = host.facts();
        facts.tools.unusable.values_mut().for_each(|found| found.own = own);
        let findings = diagnose(&facts, Wish::default());
        assert_eq!(findings[0].code, "not-executable");
        assert_eq!(findings[0].remedy.admin.is_empty(), own, "{findings:?}");
        assert_eq!(findings[0].remedy.said.is_empty(), !own, "{findings:?}");
    }
}
