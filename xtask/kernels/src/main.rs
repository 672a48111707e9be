//! `cargo xtask kernels`: boots Debian's kernels in emulated machines, tries the same things on each, and compares with
//! what `check` predicts and with `docs/kernels.md`.

mod machines;
mod networks;
mod page;
mod results;
mod rows;
mod selinux;
mod situations;
mod storage;
mod trial;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tests::paths;

use machines::Column;
use results::{Answer, Attempt, Guarded, Kept, Network, PHASES, Results, Stored};

const HELP: &str = "\
cargo xtask kernels [--only NAME]... [--update] [--list]

  --only NAME   only this machine; can be repeated
  --update      write the results to docs/kernels.md instead of comparing them with it
  --list        print the names of the machines
";

/// What can be tried.
#[derive(Clone, Copy)]
enum Target<'a> {
    Machine(&'a Column),
    /// The machine of [`situations`].
    Situations,
    /// The machine of [`storage`].
    Storage,
    /// The machine of [`networks`].
    Networks,
    /// The machine of [`selinux`].
    Selinux,
}

impl<'a> Target<'a> {
    fn all(columns: &'a [Column]) -> Vec<Self> {
        columns
            .iter()
            .map(Self::Machine)
            .chain([Self::Situations, Self::Storage, Self::Networks, Self::Selinux])
            .collect()
    }

    /// What `--only` takes.
    fn name(self) -> &'static str {
        match self {
            Self::Machine(column) => column.name,
            Self::Situations => "situations",
            Self::Storage => "storage",
            Self::Networks => "networks",
            Self::Selinux => "selinux",
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let columns = machines::columns();
    let all = Target::all(&columns);
    let names = || all.iter().map(|target| target.name());
    let (mut only, mut update) = (Vec::new(), false);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--only" => {
                let name = args.next().context("--only takes the name of a machine")?;
                let known = all.iter().find(|target| target.name() == name);
                only.push(*known.with_context(|| {
                    let names: Vec<_> = names().collect();
                    format!("there is no machine {name:?}\nhint: use one of {}", names.join(", "))
                })?);
            }
            "--update" => update = true,
            "--list" => {
                names().for_each(|name| println!("{name}"));
                return Ok(());
            }
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            other => bail!("unknown argument {other:?}\n\n{HELP}"),
        }
    }
    let chosen = if only.is_empty() { all.clone() } else { only };
    let mut stored = results::read()?;
    let mut failed = Vec::new();
    for target in &chosen {
        let name = target.name();
        println!("==> {name}");
        let result = match target {
            Target::Machine(column) => try_machine(column, &mut stored, update),
            Target::Situations => try_situations(&mut stored, update),
            Target::Storage => try_storage(&mut stored, update),
            Target::Networks => try_networks(&mut stored, update),
            Target::Selinux => try_selinux(&mut stored, update),
        };
        if let Err(error) = result {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    if update {
        results::write(&stored)?;
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let path = paths::docs().join("kernels.md");
        std::fs::write(&path, page::page(&names, &stored))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    println!("machines: {}, failed: {}", chosen.len(), failed.len());
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

fn try_machine(column: &Column, stored: &mut Stored, update: bool) -> Result<()> {
    let started = Instant::now();
    let say = |id: &str, answer: &Answer| {
        let seconds = started.elapsed().as_secs();
        let works = if answer.works { "yes".to_owned() } else { format!("no: {}", answer.seen) };
        println!("{seconds:>5} s  {:<20} {id:<24} {works}", column.name);
    };
    let found = trial::run(column, &say)?;
    trial::verify(&found)?;
    let kept = stored.machines.insert(column.name.to_owned(), found.clone());
    if update { Ok(()) } else { compare(kept.as_ref(), &found) }
}

fn try_situations(stored: &mut Stored, update: bool) -> Result<()> {
    let started = Instant::now();
    let found = situations::run(&|id, found| {
        let seconds = started.elapsed().as_secs();
        let codes: Vec<&str> = found.said.keys().map(String::as_str).collect();
        println!(
            "{seconds:>5} s  {id:<24} works: {}, check says: {codes:?}, fixed: {:?}",
            found.works, found.fixed
        );
    })?;
    let kept = std::mem::replace(&mut stored.situations, found);
    let same = |id: &String, now: &_| kept.get(id) == Some(now);
    unchanged(&kept, &stored.situations, &same, update)
}

fn try_storage(stored: &mut Stored, update: bool) -> Result<()> {
    let started = Instant::now();
    let found = storage::run(&|id, kept| {
        let seconds = started.elapsed().as_secs();
        let Kept { codes, driver, works, fixed, seen } = kept;
        println!(
            "{seconds:>5} s  {id:<24} works: {works}, check says: {codes:?}, fixed: {fixed:?}, {driver}: {seen}"
        );
    })?;
    let kept = std::mem::replace(&mut stored.storage, found);
    let same = |id: &String, now: &Kept| {
        kept.get(id).is_some_and(|kept| Kept { seen: now.seen.clone(), ..kept.clone() } == *now)
    };
    unchanged(&kept, &stored.storage, &same, update)
}

fn try_networks(stored: &mut Stored, update: bool) -> Result<()> {
    let started = Instant::now();
    let (found, wrong) = networks::run(&|id, network| {
        let seconds = started.elapsed().as_secs();
        for (phase, seen) in PHASES.iter().zip(&network.phases) {
            println!("{seconds:>5} s  {id:<16} {phase:<6} check says: {:?}", seen.codes);
            for Attempt { what, inside, host } in &seen.attempts {
                println!("{:>48} {what}: {}; on the host: {}", "", inside.seen, host.seen);
            }
        }
        if !network.said.is_empty() {
            println!("rootlesskit says: {}", network.said);
        }
    })?;
    let kept = std::mem::replace(&mut stored.networks, found);
    let same =
        |id: &String, now: &Network| kept.get(id).is_some_and(|kept| kept.phases == now.phases);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    unchanged(&kept, &stored.networks, &same, update)
}

fn try_selinux(stored: &mut Stored, update: bool) -> Result<()> {
    let started = Instant::now();
    let found = selinux::run(&|id, mode, Guarded { kept, denied }| {
        let seconds = started.elapsed().as_secs();
        let Kept { codes, driver, works, fixed, seen } = kept;
        println!(
            "{seconds:>5} s  {id:<12} {mode:<10} works: {works}, check says: {codes:?}, fixed: {fixed:?}, {driver}: {seen}"
        );
        denied.iter().for_each(|denied| println!("{:>24} denied: {denied}", ""));
    })?;
    let kept = std::mem::replace(&mut stored.selinux, found);
    // What failed is for whoever watches.
    let same = |id: &String, now: &BTreeMap<String, Guarded>| {
        let silent = |modes: &BTreeMap<String, Guarded>| {
            let mut modes = modes.clone();
            modes.values_mut().for_each(|found| found.kept.seen.clear());
            modes
        };
        kept.get(id).is_some_and(|kept| silent(kept) == silent(now))
    };
    unchanged(&kept, &stored.selinux, &same, update)
}

/// Fails if something is not as it was, unless that is to be updated.
fn unchanged<T: Debug>(
    kept: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
    same: &dyn Fn(&String, &T) -> bool,
    update: bool,
) -> Result<()> {
    let differing: Vec<String> = found
        .iter()
        .filter(|(id, now)| !same(id, now))
        .map(|(id, now)| format!("{id}: {now:?}, but before {:?}", kept.get(id)))
        .collect();
    ensure!(
        update || differing.is_empty(),
        "{}\nhint: use --update if this is right",
        differing.join("\n")
    );
    Ok(())
}

/// Fails if something is not as the page says. Versions may differ: Debian's packages are not ours to hold.
fn compare(kept: Option<&Results>, found: &Results) -> Result<()> {
    let kept = kept.context("docs/kernels.md does not have this machine\nhint: use --update")?;
    let mut differing = Vec::new();
    for (what, before, now) in [
        ("the network driver", &kept.network, &found.network),
        ("the storage driver", &kept.storage, &found.storage),
        ("the warnings of check", &kept.codes.join(", "), &found.codes.join(", ")),
    ] {
        if before != now {
            differing.push(format!("{what}: {now}, but docs/kernels.md says {before}"));
        }
    }
    for row in rows::all() {
        let said = |results: &Results| match (results.answer(row), results.why(row)) {
            (None, _) => "was not tried".to_owned(),
            (Some(answer), _) if answer.works => "works".to_owned(),
            (Some(_), why) => format!("does not work: {}", why.unwrap_or_default()),
        };
        let (before, now) = (said(kept), said(found));
        if before != now {
            differing.push(format!("{} {now}, but docs/kernels.md says that it {before}", row.id));
        }
    }
    ensure!(differing.is_empty(), "{}\nhint: use --update if this is right", differing.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests_of_the_page {
    use super::*;

    fn names() -> Vec<&'static str> {
        machines::columns().iter().map(|column| column.name).collect()
    }

    #[test]
    fn the_page_is_what_the_stored_results_say() {
        let stored = results::read().unwrap();
        tests::page::compare("kernels.md", &page::page(&names(), &stored)).unwrap();
    }

    #[test]
    fn the_page_has_no_empty_cell_and_no_failure_without_a_reason() {
        let stored = results::read().unwrap();
        for name in names() {
            trial::verify(&stored.machines[name]).unwrap();
        }
        let ids: Vec<_> = situations::SITUATIONS.iter().map(|situation| situation.id).collect();
        assert!(ids.iter().all(|id| stored.situations.contains_key(*id)));
        assert_eq!(stored.situations.len(), ids.len());
        let ids: Vec<_> = storage::PLACES.iter().map(|place| place.id).collect();
        assert!(ids.iter().all(|id| stored.storage.contains_key(*id)));
        assert_eq!(stored.storage.len(), ids.len());
        for case in networks::CASES {
            assert_eq!(
                stored.networks[case.id].worse(case.why),
                Vec::<String>::new(),
                "{}",
                case.id
            );
        }
        assert_eq!(stored.networks.len(), networks::CASES.len());
        for case in selinux::CASES {
            let modes = &stored.selinux[case.id];
            assert!(selinux::MODES.iter().all(|mode| modes.contains_key(*mode)), "{}", case.id);
        }
        assert_eq!(stored.selinux.len(), selinux::CASES.len());
    }
}
