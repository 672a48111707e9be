//! `cargo xtask soak`: every kind of use at once for a long time, with deaths of helpers in between, and a verdict.
//!
//! # Theory of operation
//! Everything happens in one box ([`world`]): a rootlesskit with the gateway network, one with slirp4netns and `builtin`,
//! each with an account of its own, and a real dockerd. Clients ask all the time ([`traffic`]); ports, processes and
//! containers come and go ([`churn`]); helpers are killed and name servers change ([`provoke`]). Each process is looked
//! at every few seconds ([`sample`]). All of that is written down ([`record`]), drawn ([`plot`]) and judged ([`verdict`]).

mod churn;
mod plot;
mod provoke;
mod record;
mod report;
mod sample;
mod traffic;
mod verdict;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tests::docker::Docker;
use tests::{PATIENCE, TestBox, paths, wait};

use record::{Journal, Label, Record};
use world::{GATEWAY, Instance, SLIRP4NETNS};

/// How often processes are looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// How often there is a sign of life.
const PROGRESS_INTERVAL: u32 = 12;

/// What was asked for.
struct Options {
    minutes: f64,
    /// Where the record, the chart and the logs go.
    out: PathBuf,
    /// The record of another soak, which is judged and drawn again.
    plot: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut this = Self { minutes: 60.0, out: paths::target()?.join("soak"), plot: None };
        let mut rest = args.iter();
        while let Some(option) = rest.next() {
            let value = rest.next().with_context(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--minutes" => {
                    let minutes = value.parse().ok().filter(|m: &f64| (0.5..=10_000.0).contains(m));
                    this.minutes = minutes.with_context(|| {
                        format!("--minutes {value}: not a number from 0.5 to 10000")
                    })?;
                }
                "--out" => this.out = PathBuf::from(value),
                "--plot" => this.plot = Some(PathBuf::from(value)),
                _ => bail!(
                    "unknown option {option}\nhint: cargo xtask soak [--minutes N] [--out DIR] [--plot FILE]"
                ),
            }
        }
        Ok(this)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the product has stood the soak.
fn run(args: &[String]) -> Result<bool> {
    let options = Options::parse(args)?;
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("creating {}", options.out.display()))?;
    let record = match &options.plot {
        Some(file) => read(file)?,
        None => measure(Duration::from_secs_f64(options.minutes * 60.0), &options.out)?,
    };
    let verdict = verdict::of(&record);
    write(&options.out, "soak.svg", &plot::draw(&record, &verdict)?)?;
    print!("{}", report::text(&record, &verdict));
    Ok(verdict.is_good())
}

fn read(file: &Path) -> Result<Record> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is not the record of a soak", file.display()))
}

fn write(out: &Path, name: &str, text: &str) -> Result<()> {
    let path = out.join(name);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Runs the soak, and writes its record before anything is stopped, because that can fail too.
fn measure(length: Duration, out: &Path) -> Result<Record> {
    let b = world::boot()?;
    let _servers = world::serve(&b)?;
    let gateway = Instance::start(&b, GATEWAY)?;
    let slirp4netns = Instance::start(&b, SLIRP4NETNS)?;
    let d = world::docker(&b)?;
    let journal = Journal::begin(world::machine(&b, &d)?);
    let used = use_all(&b, [&gateway, &slirp4netns], &d, &journal, length);
    let record = journal.end();
    write(out, "soak.json", &serde_json::to_string(&record)?)?;
    write(out, "gateway.log", &gateway.log()?)?;
    write(out, "slirp4netns.log", &slirp4netns.log()?)?;
    write(out, "docker.log", &d.log()?)?;
    used?;
    d.run("rm -f streams echo")?;
    d.stop()?;
    slirp4netns.stop()?;
    gateway.stop()?;
    wait::until("nothing is left running", PATIENCE, || {
        Ok(sample::take(&b, 0).is_empty().then_some(()))
    })?;
    Ok(record)
}

/// Everything at once.
fn use_all(
    b: &TestBox,
    instances: [&Instance<'_>; 2],
    d: &Docker<'_>,
    journal: &Journal,
    length: Duration,
) -> Result<()> {
    let seconds = length.as_secs_f64();
    let mut clients = traffic::of_docker(b, seconds)?;
    for instance in instances {
        clients.extend(traffic::of_instance(instance, seconds)?);
    }
    let start = Instant::now();
    let (end, time) = (start + length, (start, length));
    let provoked = std::thread::scope(|scope| -> Result<()> {
        for instance in instances {
            scope.spawn(move || churn::ports(instance, journal, end));
            scope.spawn(move || churn::processes(instance, journal, end));
        }
        scope.spawn(move || churn::containers(b, d, journal, end));
        scope.spawn(move || churn::short_containers(d, journal, end));
        let labels = [Label::Gateway, Label::Slirp4netns, Label::Docker];
        let kills = labels.map(|label| scope.spawn(move || provoke::kill(b, label, journal, time)));
        let resolvers = scope.spawn(move || provoke::change_resolvers(b, journal, time));
        watch(b, journal, end);
        for thread in kills.into_iter().chain([resolvers]) {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    });
    journal.ends();
    let finished = clients.into_iter().map(|client| client.finish(journal));
    // All of them, whatever became of the first.
    let finished: Vec<Result<()>> = finished.collect();
    provoked?;
    finished.into_iter().collect()
}

/// Looks at the processes until the end.
fn watch(b: &TestBox, journal: &Journal, end: Instant) {
    let mut count = 0;
    while Instant::now() < end {
        let samples = sample::take(b, journal.now());
        count += 1;
        if count % PROGRESS_INTERVAL == 1 {
            let [operations, failures] = journal.with(|r| [r.traffic.len(), r.failures.len()]);
            let seconds = journal.now() / 1000;
            eprintln!(
                "{seconds} s: {} processes, churn: {operations} done, {failures} failed",
                samples.len()
            );
        }
        let load = sample::load(journal.now());
        journal.with(|record| {
            record.samples.extend(samples);
            record.loads.extend(load);
        });
        std::thread::sleep(SAMPLE_INTERVAL.min(end.saturating_duration_since(Instant::now())));
    }
}
