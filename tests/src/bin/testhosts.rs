//! Makes the root file systems of the named suites (by default all, and the disk of the virtual machine) ahead of the
//! tests, next to each other: the time goes into downloads and into unpacking, one after the other per tree.

use tests::{Machine, Rootfs, Suite, TestBox, Vm};

fn main() -> anyhow::Result<()> {
    TestBox::sweep();
    let names: Vec<String> = std::env::args().skip(1).collect();
    let suites = if names.is_empty() { Suite::ALL.to_vec() } else { parse(&names)? };
    let disk =
        names.is_empty().then(|| std::thread::spawn(|| Vm::prepare(&Machine::of(Suite::Sid))));
    let makers: Vec<_> = suites
        .into_iter()
        .map(|suite| (suite, std::thread::spawn(move || Rootfs::get(suite))))
        .collect();
    for (suite, maker) in makers {
        let rootfs = maker.join().map_err(|_| anyhow::anyhow!("{}: panicked", suite.name()))??;
        println!("{} {}", suite.name(), rootfs.path().display());
    }
    if let Some(disk) = disk {
        disk.join().map_err(|_| anyhow::anyhow!("disk: panicked"))??;
    }
    Ok(())
}

fn parse(names: &[String]) -> anyhow::Result<Vec<Suite>> {
    let one = |name: &String| {
        Suite::from_name(name)
            .ok_or_else(|| anyhow::anyhow!("unknown suite {name:?}\nhint: sid, trixie or bookworm"))
    };
    names.iter().map(one).collect()
}
