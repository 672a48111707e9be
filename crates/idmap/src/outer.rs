//! The ids that the user namespace around us has.
//!
//! In an unprivileged container (LXC, Docker's userns-remap, rootless Podman) there are few of them, often 65536, and the
//! kernel maps no others into a namespace below (user_namespaces(7)): `newuidmap` says "write to uid_map failed: Operation
//! not permitted" whatever privileges it has. `/proc/self/uid_map` and `/proc/self/gid_map` tell which there are.

use std::fs;
use std::path::Path;

use crate::{Kind, Range};

/// One line of the map: ids inside, and the first of the ids that they are in the namespace around this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    inside: Range,
    outside: u32,
}

/// The ids of one kind that there are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outer {
    extents: Vec<Extent>,
}

impl Outer {
    /// All ids, as on a host.
    pub fn whole() -> Self {
        Self { extents: vec![Extent { inside: Range::ALL, outside: 0 }] }
    }

    /// Reads `<root>/proc/self/uid_map`, or `gid_map`. What cannot be read counts as a host.
    pub fn read(root: &Path, kind: Kind) -> Self {
        let text = fs::read_to_string(root.join("proc/self").join(kind.map_file()));
        text.map_or_else(|_| Self::whole(), |text| Self::parse(&text))
    }

    /// Lines of `<first id inside> <first id outside> <count>`. A text without any is taken for that of a host.
    pub fn parse(text: &str) -> Self {
        let extent = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let mut next = || numbers.next()?.ok();
            let (inside, outside, count) = (next()?, next()?, next()?);
            Some(Extent { inside: Range::new(inside, count)?, outside })
        };
        let mut extents: Vec<Extent> = text.lines().filter_map(extent).collect();
        extents.sort_unstable_by_key(|extent| extent.inside);
        if extents.is_empty() { Self::whole() } else { Self { extents } }
    }

    /// Whether all ids are there.
    pub fn is_whole(&self) -> bool {
        self.holds(Range::ALL)
    }

    /// Whether the kernel would map all of `range` from here.
    pub fn holds(&self, range: Range) -> bool {
        let mut next = range.start();
        for extent in &self.extents {
            if extent.inside.start() <= next {
                next = next.max(extent.inside.end());
            }
        }
        next >= range.end()
    }

    /// The ids inside, in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = Range> {
        self.extents.iter().map(|extent| extent.inside)
    }

    /// The ids that there are both here and in `other`.
    pub fn common(&self, other: &Self) -> Vec<Range> {
        let pairs = self.ranges().flat_map(|ours| other.ranges().map(move |theirs| (ours, theirs)));
        pairs
            .filter_map(|(a, b)| Range::between(a.start().max(b.start()), a.end().min(b.end())))
            .collect()
    }

    /// How to give the container so many ids that `count` more fit behind those of the usual users, for whoever
    /// administers its host. `kind` is that of this map.
    pub fn widening(&self, wanted: Range) -> String {
        let others = "Incus and LXD: set security.idmap.size; Docker with userns-remap: give dockremap a larger range; Podman: \
                      use --uidmap and --gidmap";
        let &[Extent { inside, outside }] = self.extents.as_slice() else {
            return format!(
                "on the container's host, give the container the IDs up to {}. LXC and Proxmox: set lxc.idmap; {others}",
                wanted.end() - 1
            );
        };
        let count = wanted.end().saturating_sub(inside.start());
        let first = inside.start();
        format!(
            "on the container's host, give the container more IDs. LXC: put `lxc.idmap = u {first} {outside} {count}` and \
             `lxc.idmap = g {first} {outside} {count}` into the container's configuration, and `root:{outside}:{count}` \
             into /etc/subuid and /etc/subgid; Proxmox: the same, with `lxc.idmap:` instead of `lxc.idmap =`; {others}"
        )
    }

    /// The ids in words: `0-65535`.
    pub fn describe(&self) -> String {
        self.ranges().map(|range| range.to_string()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LXC: &str = "         0    1000000      65536\n";
    const HOST: &str = "         0          0 4294967295\n";
    const PODMAN: &str = "         0       1000          1\n         1     100000      65536\n";

    fn range(start: u32, count: u32) -> Range {
        Range::new(start, count).unwrap()
    }

    #[test]
    fn a_container_holds_only_its_own_ids() {
        let lxc = Outer::parse(LXC);
        assert!(!lxc.is_whole() && !lxc.holds(range(100_000, 65536)));
        assert!(lxc.holds(range(2000, 60000)) && lxc.holds(range(0, 65536)));
        assert!(!lxc.holds(range(60_000, 10_000)), "in part is not enough");
        assert_eq!(lxc.describe(), "0-65535");
        let podman = Outer::parse(PODMAN);
        assert!(podman.holds(range(0, 65537)), "ids of two lines");
        assert!(!podman.holds(range(0, 65538)));
        assert_eq!(podman.common(&lxc), [range(0, 1), range(1, 65535)]);
    }

    #[test]
    fn a_host_holds_all() {
        assert!(Outer::parse(HOST).is_whole());
        assert!(Outer::parse("").is_whole(), "what is not there says nothing");
        assert!(Outer::read(Path::new("/nonexistent"), Kind::Uid).is_whole());
        // The kernel's own.
        assert!(!Outer::read(Path::new("/"), Kind::Gid).describe().is_empty());
    }

    #[test]
    fn widening_names_lines_for_the_host() {
        let text = Outer::parse(LXC).widening(range(100_000, 65536));
        assert!(text.contains("lxc.idmap = u 0 1000000 165536"), "{text}");
        assert!(text.contains("lxc.idmap = g 0 1000000 165536"), "{text}");
        assert!(text.contains("root:1000000:165536"), "{text}");
        let text = Outer::parse(PODMAN).widening(range(100_000, 65536));
        assert!(text.contains("the IDs up to 165535. LXC and Proxmox: set lxc.idmap;"), "{text}");
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "[0-9 \n-]{0,60}", start: u32, count: u32) {
            let outer = Outer::parse(&text);
            if let Some(range) = Range::new(start, count) {
                let held = (range.start()..range.end()).step_by(1 + count as usize / 64)
                    .all(|id| outer.ranges().any(|r| r.start() <= id && id < r.end()));
                prop_assert!(!outer.holds(range) || held);
                let _ = outer.widening(range);
            }
        }
    }
}
