//! From ranges to maps.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use crate::{Kind, Range};

/// The kernel takes this many lines for one map since Linux 4.15 (user_namespaces(7)); before it was 5.
const MAX_EXTENTS: usize = 340;

/// The kernel takes less than a page of text for one map, in one write (user_namespaces(7)); newuidmap writes once. Pages
/// have 4096 bytes at least.
const MAX_TEXT: usize = 4095;

/// Both maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps {
    /// What to give to newuidmap(1).
    pub uid: Vec<LinuxIdMapping>,
    /// What to give to newgidmap(1).
    pub gid: Vec<LinuxIdMapping>,
}

impl Maps {
    /// The map of one kind.
    pub fn of(&self, kind: Kind) -> &[LinuxIdMapping] {
        kind.either(&self.uid, &self.gid)
    }
}

/// Makes the maps of a user: id 0 is the user's own, then the ranges follow in their order, packed from 1.
///
/// The kernel refuses a map that holds a host id twice. So of every range only those ids are taken that are not the
/// user's own and not in an earlier range; a range may fall apart by that. If that is more than the kernel takes for one map,
/// the smallest ranges are left out, with a warning. Ranges that lie side by side stay apart, since
/// not every NSS module grants what spans two of its ranges.
pub fn build(uid: u32, gid: u32, uids: &[Range], gids: &[Range]) -> Maps {
    Maps { uid: map(Kind::Uid, uid, uids), gid: map(Kind::Gid, gid, gids) }
}

fn map(kind: Kind, own: u32, ranges: &[Range]) -> Vec<LinuxIdMapping> {
    // More cannot be used, and every one costs a look at all others.
    let all = largest(ranges, MAX_EXTENTS);
    let mut extents = extents(own, &all);
    let complete = extents.len();
    while extents.len() > MAX_EXTENTS || text_length(&lines(&extents)) > MAX_TEXT {
        extents = largest(&extents, extents.len() - 1);
    }
    if extents.len() < complete || all.len() < ranges.len() {
        let (kind, count) = (kind.subid(), extents.len() - 1);
        tracing::warn!(
            "using only the {count} largest of {} {kind} ranges: the kernel accepts at most {MAX_EXTENTS} lines and \
             {MAX_TEXT} bytes for a map. hint: use fewer and larger ranges in /etc/{kind}",
            ranges.len()
        );
    }
    lines(&extents)
}

fn lines(extents: &[Range]) -> Vec<LinuxIdMapping> {
    let mut next = 0;
    let mut lines = Vec::with_capacity(extents.len());
    for extent in extents {
        lines.push(mapping(next, *extent));
        // Cannot overflow: the extents are disjoint and id 4294967295 is in none.
        next += extent.count();
    }
    lines
}

/// The bytes that newuidmap writes.
fn text_length(lines: &[LinuxIdMapping]) -> usize {
    let digits = |number: u32| number.checked_ilog10().unwrap_or(0) as usize + 1;
    let line = |line: &LinuxIdMapping| {
        // Two blanks and a line end.
        [line.container_id(), line.host_id(), line.size()].map(digits).iter().sum::<usize>() + 3
    };
    lines.iter().map(line).sum()
}

/// The first range, which is the user's own id where that matters, and the largest others, `count` in all, in their order;
/// of equal ones the first.
fn largest(ranges: &[Range], count: usize) -> Vec<Range> {
    let mut order: Vec<usize> = (1..ranges.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(ranges[n].count()));
    order.truncate(count.saturating_sub(1));
    order.extend((!ranges.is_empty()).then_some(0));
    order.sort_unstable();
    order.into_iter().map(|n| ranges[n]).collect()
}

/// Disjoint host ranges, the user's own id first.
fn extents(own: u32, ranges: &[Range]) -> Vec<Range> {
    let mut taken: Vec<Range> = Range::new(own, 1).into_iter().collect();
    for range in ranges {
        let pieces = without(*range, &taken);
        taken.extend(pieces);
    }
    taken
}

/// What is left of `range` in ascending order once `taken` is cut out.
fn without(range: Range, taken: &[Range]) -> Vec<Range> {
    let mut left = vec![range];
    for cut in taken {
        left = left
            .into_iter()
            .flat_map(|piece| {
                let before = Range::between(piece.start(), piece.end().min(cut.start()));
                let after = Range::between(piece.start().max(cut.end()), piece.end());
                // A piece that the cut does not touch comes out of one of the two whole.
                [before, after]
            })
            .flatten()
            .collect();
    }
    left
}

fn mapping(container: u32, host: Range) -> LinuxIdMapping {
    let mut mapping = LinuxIdMappingBuilder::default();
    mapping = mapping.container_id(container).host_id(host.start()).size(host.count());
    // The builder's only complaint is a missing field.
    mapping.build().expect("all fields are set")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(list: &[(u32, u32)]) -> Vec<Range> {
        list.iter().filter_map(|&(start, count)| Range::new(start, count)).collect()
    }

    /// The map as one line of numbers, as on the command line of newuidmap.
    fn line(own: u32, list: &[(u32, u32)]) -> String {
        let maps = build(own, 7, &ranges(list), &[]);
        assert_eq!(maps.gid, [mapping(0, Range::new(7, 1).unwrap())]);
        let words = maps
            .of(Kind::Uid)
            .iter()
            .map(|m| format!("{} {} {}", m.container_id(), m.host_id(), m.size()));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_are_packed_from_1_in_their_order() {
        assert_eq!(line(1000, &[(100_000, 65536)]), "0 1000 1 1 100000 65536");
        assert_eq!(
            line(1000, &[(100_000, 65536), (200_000, 65536)]),
            "0 1000 1 1 100000 65536 65537 200000 65536"
        );
        assert_eq!(
            line(1000, &[(200_000, 10), (100_000, 10)]),
            "0 1000 1 1 200000 10 11 100000 10"
        );
        assert_eq!(
            line(1000, &[(100_000, 10), (100_010, 10)]),
            "0 1000 1 1 100000 10 11 100010 10"
        );
    }

    #[test]
    fn duplicates_and_overlaps_are_cut_out() {
        assert_eq!(line(1, &[(100, 10), (100, 10)]), "0 1 1 1 100 10");
        assert_eq!(line(1, &[(100, 10), (105, 10)]), "0 1 1 1 100 10 11 110 5");
        assert_eq!(line(1, &[(105, 10), (100, 10)]), "0 1 1 1 105 10 11 100 5");
        assert_eq!(line(1, &[(105, 2), (100, 10)]), "0 1 1 1 105 2 3 100 5 8 107 3");
        assert_eq!(line(1, &[(100, 10), (102, 3)]), "0 1 1 1 100 10");
    }

    #[test]
    fn the_users_own_id_is_cut_out() {
        assert_eq!(line(100, &[(100, 10)]), "0 100 1 1 101 9");
        assert_eq!(line(109, &[(100, 10)]), "0 109 1 1 100 9");
        assert_eq!(line(105, &[(100, 10)]), "0 105 1 1 100 5 6 106 4");
        assert_eq!(line(105, &[(105, 1)]), "0 105 1");
    }

    #[test]
    fn the_kernels_limit_holds() {
        // "0 1 1", then lines as short as they come: the number of lines is what counts.
        let list: Vec<(u32, u32)> = (0..400).map(|i| (10 + 2 * i, 1)).collect();
        let maps = build(1, 1, &ranges(&list), &ranges(&list[..339]));
        assert_eq!((maps.uid.len(), maps.gid.len()), (340, 340));
        assert_eq!(maps.uid[339].host_id(), 10 + 2 * 338);
    }

    #[test]
    fn as_much_as_fits_the_page_is_used_and_the_smallest_ranges_go_first() {
        let list: Vec<(u32, u32)> = (0..400).map(|i| (100_000 + 1000 * i, 500 + i % 7)).collect();
        let written = |list: &[(u32, u32)]| {
            let uid = build(1, 1, &ranges(list), &[]).uid;
            let line =
                |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
            (uid.iter().map(line).collect::<String>(), uid)
        };
        let (text, uid) = written(&list);
        assert!(text.len() < 4096 && text.len() > 4096 - 25, "{} bytes", text.len());
        assert_eq!((uid[0].host_id(), uid[0].size()), (1, 1));
        let least = uid[1..].iter().map(LinuxIdMapping::size).min().unwrap();
        let larger = list.iter().filter(|(_, count)| *count > least).count();
        assert_eq!(uid.iter().filter(|m| m.size() > least).count(), larger);
        assert!(uid.is_sorted_by_key(LinuxIdMapping::host_id));
        // The large range of a user with many small ones stays, wherever it is.
        let mut list: Vec<(u32, u32)> = (0..100_000).map(|i| (2_000_000 + 2 * i, 1)).collect();
        list.push((100_000, 65536));
        let (text, uid) = written(&list);
        assert!(text.len() < 4096);
        assert_eq!(uid.last().map(LinuxIdMapping::size), Some(65536));
    }

    proptest! {
        #[test]
        fn maps_are_what_the_kernel_takes(own in 0u32..300, list in proptest::collection::vec((0u32..300, 1u32..40), 0..30)) {
            let given = ranges(&list);
            let maps = build(own, own, &given, &[]);
            prop_assert_eq!((maps.uid[0].host_id(), maps.uid[0].size()), (own, 1));
            let mut next = 0;
            let mut seen = std::collections::BTreeSet::new();
            for m in &maps.uid {
                prop_assert_eq!(m.container_id(), next);
                prop_assert!(m.size() > 0);
                next += m.size();
                for id in m.host_id()..m.host_id() + m.size() {
                    prop_assert!(seen.insert(id), "{} twice", id);
                }
                // newuidmap grants an extent only inside of what the user has.
                let inside = given.iter().any(|r| r.start() <= m.host_id() && m.host_id() + m.size() <= r.end());
                prop_assert!(inside || m.container_id() == 0);
            }
            let all: std::collections::BTreeSet<u32> =
                given.iter().flat_map(|r| r.start()..r.end()).chain([own]).collect();
            prop_assert_eq!(seen, all);
        }

        #[test]
        fn no_ranges_make_it_panic(own: u32, list: Vec<(u32, u32)>) {
            let _ = build(own, own, &ranges(&list), &ranges(&list));
        }
    }
}
