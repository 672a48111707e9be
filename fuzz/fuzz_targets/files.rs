//! Files that others write: subordinate ids and mountinfo.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(ranges) = idmap::subid::parse(Path::new("/etc/subuid"), data, "user", 1000) {
        let maps = idmap::map::build(1000, 1000, &ranges, &ranges);
        // The kernel refuses a map that has an id twice.
        let mut ends: Vec<(u64, u64)> = maps
            .uid
            .iter()
            .map(|m| (u64::from(m.host_id()), u64::from(m.host_id()) + u64::from(m.size())))
            .collect();
        ends.sort_unstable();
        assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ends:?}");
    }
    let _ = idmap::subid::free_range(&[data]);
    let _ = cgroup2::mountpoint(data);
});
