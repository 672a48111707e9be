//! What the host says about its users and routes, in files: passwd(5), `/proc/net/route` and `/proc/net/ipv6_route`.
#![no_main]

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hostenv::routes::Routes;
use hostenv::user::lookup_uid;
use hostenv::{Env, vars};
use libfuzzer_sys::fuzz_target;

/// The files of a host, in a folder for each process: `host/PID` in cargo's target folder, which has this program in
/// `TRIPLE/release`.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let exe = std::env::current_exe().expect("the path of the program");
    let target = exe.ancestors().nth(3).expect("a target folder");
    let root = target.join("host").join(std::process::id().to_string());
    for folder in ["etc", "proc/net"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    root
});

/// Replaces what a file has. Emptying it first would have file systems write it to the disk at once.
fn replace(file: &Path, data: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(file)?;
    file.write_all(data)?;
    file.set_len(data.len().try_into().expect("a length"))
}

fuzz_target!(|data: &[u8]| {
    let root = ROOT.as_path();
    for file in ["etc/passwd", "proc/net/route", "proc/net/ipv6_route"] {
        replace(&root.join(file), data).expect("a file");
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
