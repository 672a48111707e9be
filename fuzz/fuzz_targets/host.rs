//! What the host says about its users and routes, in files: passwd(5), `/proc/net/route` and `/proc/net/ipv6_route`.
#![no_main]

use std::fs;

use hostenv::routes::Routes;
use hostenv::user::lookup_uid;
use hostenv::{Env, vars};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // In memory as a rule, which is faster.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let root = dir.path();
    for folder in ["etc", "proc/net"] {
        fs::create_dir_all(root.join(folder)).expect("a folder in it");
    }
    for file in ["etc/passwd", "proc/net/route", "proc/net/ipv6_route"] {
        fs::write(root.join(file), data).expect("a file");
    }
    // An empty PATH has no getent, which would be asked next.
    let env: Env = [(vars::PATH, "")].into_iter().collect();
    if let Ok(user) = lookup_uid(root, 1000, &env) {
        assert!(user.uid == 1000 && !user.name.is_empty());
        assert!(!user.name.contains([':', '\n']) && !user.name.starts_with(['+', '-', '#']));
    }
    let routes = Routes::read(root);
    assert!(
        routes.v4.iter().all(|network| *network == network.trunc() && network.prefix_len() > 0)
    );
});
