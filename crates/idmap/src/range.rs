//! A range of host ids, and the two kinds of ids.

use std::fmt;

/// User ids or group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// User ids: subuid(5), newuidmap(1).
    Uid,
    /// Group ids: subgid(5), newgidmap(1).
    Gid,
}

impl Kind {
    /// `subuid` or `subgid`: the file below `/etc`, and the word of messages.
    pub fn subid(self) -> &'static str {
        self.either("subuid", "subgid")
    }

    /// `uid_map` or `gid_map`: the file of a process in `/proc`.
    pub fn map_file(self) -> &'static str {
        self.either("uid_map", "gid_map")
    }

    /// The program that writes such a map.
    pub fn tool(self) -> &'static str {
        self.either("newuidmap", "newgidmap")
    }

    pub(crate) fn either<T>(self, uid: T, gid: T) -> T {
        match self {
            Kind::Uid => uid,
            Kind::Gid => gid,
        }
    }
}

/// A range of host ids: at least one, and none of them is 4294967295, which the kernel takes for "no id".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    start: u32,
    count: u32,
}

impl Range {
    /// Every id there is.
    pub const ALL: Range = Range { start: 0, count: u32::MAX };

    /// `None` if `count` is 0 or the range reaches beyond id 4294967294.
    pub const fn new(start: u32, count: u32) -> Option<Range> {
        if count > 0 && start.checked_add(count).is_some() {
            Some(Range { start, count })
        } else {
            None
        }
    }

    /// The first id.
    pub fn start(self) -> u32 {
        self.start
    }

    /// The number of ids.
    pub fn count(self) -> u32 {
        self.count
    }

    /// The id behind the last one.
    pub fn end(self) -> u32 {
        self.start + self.count
    }

    /// The range from `start` up to but without `end`, if it has any id.
    pub(crate) fn between(start: u32, end: u32) -> Option<Range> {
        end.checked_sub(start).and_then(|count| Range::new(start, count))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end() - 1)
    }
}

/// How many ids the ranges have together; ids that are in several count several times.
pub fn total(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_id_is_never_in_a_range() {
        assert!(Range::new(u32::MAX - 1, 1).is_some());
        assert!(Range::new(u32::MAX, 1).is_none());
        assert!(Range::new(u32::MAX - 1, 2).is_none());
        assert!(Range::new(0, u32::MAX).is_some());
        assert!(Range::new(5, 0).is_none());
    }

    #[test]
    fn prints_like_usermod_wants_it() {
        assert_eq!(Range::new(100_000, 65536).unwrap().to_string(), "100000-165535");
    }
}
