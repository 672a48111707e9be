//! Files and settings that others write: subordinate ids, ID maps, mountinfo, name servers, networks, ports of the
//! host's loopback, peers of a swarm.
#![no_main]

#[path = "../../rootlesskit/src/drivers/gateway/resolvers/conf.rs"]
mod conf;

use std::path::Path;

use idmap::outer::Outer;
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
    let text = String::from_utf8_lossy(data);
    let servers = conf::parse(&text);
    assert!(servers.len() <= conf::MAX_SERVERS && servers.iter().all(|at| at.port() == conf::PORT));
    let outer = Outer::parse(&text);
    let (own, all) = (outer.common(&outer), outer.common(&Outer::whole()));
    assert!(own.iter().all(|range| outer.holds(*range)), "{outer:?}");
    assert!(all.iter().all(|range| outer.holds(*range)), "{outer:?}");
    if let Ok(cidr) = text.parse::<drivers::Cidr>() {
        assert_eq!(cidr.to_string().parse(), Ok(cidr));
    }
    if let Ok(ports) = text.parse::<drivers::LoopbackPorts>() {
        assert_eq!(ports.to_string().parse(), Ok(ports));
    }
    if let Ok(swarm) = text.parse::<hostenv::swarm::Swarm>() {
        assert!(!swarm.peers.is_empty());
        for spec in [false, true].into_iter().flat_map(|detached| swarm.ports(detached)) {
            let spec: api::PortSpec = spec.parse().expect("a spec of ours");
            assert!(spec.validate().is_ok(), "{spec}");
        }
    }
});
