//! `cargo xtask kernels`: boots Debian's kernels in emulated machines, tries the same things on each, and compares with
//! what `check` predicts and with `docs/kernels.md`.

mod machines;
mod page;
mod results;
mod rows;
mod situations;
mod trial;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use tests::paths;

use machines::Column;
use results::{Answer, Results, Stored};

const HELP: &str = "\
cargo xtask kernels [--only NAME]... [--update] [--list]

  --only NAME   only this machine; can be repeated
  --update      write the results to docs/kernels.md instead of comparing them with it
  --list        print the names of the machines
";

/// The name by which `--only` knows the machine of [`situations`].
const SITUATIONS: &str = "situations";

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
    let (mut only, mut update) = (Vec::new(), false);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--only" => {
                let name = args.next().context("--only takes the name of a machine")?;
                let known = columns.iter().find(|column| column.name == name);
                ensure!(
                    known.is_some() || name == SITUATIONS,
                    "there is no machine {name:?}\nhint: use one of {}",
                    names(&columns).join(", ")
                );
                only.push(known);
            }
            "--update" => update = true,
            "--list" => {
                names(&columns).iter().for_each(|name| println!("{name}"));
                return Ok(());
            }
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            other => bail!("unknown argument {other:?}\n\n{HELP}"),
        }
    }
    let all = columns.iter().map(Some).chain([None]);
    let chosen: Vec<_> = if only.is_empty() { all.collect() } else { only };
    let mut stored = results::read()?;
    let mut failed = Vec::new();
    for column in &chosen {
        let name = column.map_or(SITUATIONS, |column| column.name);
        println!("==> {name}");
        let result = match column {
            Some(column) => try_machine(column, &mut stored, update),
            None => try_situations(&mut stored, update),
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
    println!("{} machines, {} failed", chosen.len(), failed.len());
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// All that `--only` takes.
fn names(columns: &[Column]) -> Vec<&'static str> {
    columns.iter().map(|column| column.name).chain([SITUATIONS]).collect()
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
    let differing: Vec<String> = stored
        .situations
        .iter()
        .filter(|(id, now)| kept.get(*id) != Some(now))
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
    }
}
