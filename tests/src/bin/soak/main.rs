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
use tests::{TestBox, paths};

use provoke::Victim;
use record::{Journal, Record};
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
    print!("{}", report::text(&record, &verdict));
    write(&options.out, "soak.svg", &plot::draw(&record, &verdict)?)?;
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

/// Runs the soak. Its record is written before anything is stopped, and once more if something does not stop.
fn measure(length: Duration, out: &Path) -> Result<Record> {
    let b = world::boot()?;
    let servers = world::serve(&b)?;
    let gateway = Instance::start(&b, GATEWAY)?;
    let slirp4netns = Instance::start(&b, SLIRP4NETNS)?;
    let d = world::docker(&b)?;
    let journal = Journal::begin(world::machine(&b, &d)?);
    let used = use_all(&b, [&gateway, &slirp4netns], &d, &journal, length);
    let mut record = journal.end();
    for (name, log) in
        [("gateway", gateway.log()?), ("slirp4netns", slirp4netns.log()?), ("docker", d.log()?)]
    {
        write(out, &format!("{name}.log"), &log)?;
        let panics = log.lines().filter(|line| line.contains("panicked"));
        record.panics.extend(panics.map(|line| format!("{name}: {line}")));
    }
    let save = |record: &Record| write(out, "soak.json", &serde_json::to_string(record)?);
    record.aborted = used.err().map(|error| format!("{error:#}"));
    save(&record)?;
    if record.aborted.is_none()
        && let Err(error) = stop(&b, d, [slirp4netns, gateway])
    {
        record.aborted = Some(format!("{error:#}"));
        save(&record)?;
    }
    drop(servers);
    Ok(record)
}

/// Ends everything in order.
fn stop(b: &TestBox, d: Docker<'_>, instances: [Instance<'_>; 2]) -> Result<()> {
    d.run("rm -f streams echo")?;
    d.stop()?;
    for instance in instances {
        instance.stop()?;
    }
    b.assert_no_processes()
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
        let mut churn = Vec::new();
        for instance in instances {
            churn.push(scope.spawn(move || churn::ports(instance, journal, end)));
            churn.push(scope.spawn(move || churn::processes(instance, journal, end)));
        }
        churn.push(scope.spawn(move || churn::containers(b, d, journal, end)));
        churn.push(scope.spawn(move || churn::short_containers(d, journal, end)));
        let [first, second] = instances.map(Victim::Of);
        let victims = [first, second, Victim::OfDocker(b)];
        let kills = victims.map(|victim| scope.spawn(move || provoke::kill(victim, journal, time)));
        let resolvers = scope.spawn(move || provoke::change_resolvers(b, journal, time));
        watch(b, journal, end);
        journal.ends();
        // All of them, whatever became of the first.
        let panicked = |_| anyhow!("a thread panicked");
        let churn = churn.into_iter().map(|thread| thread.join().map_err(panicked));
        let provoked = kills.into_iter().chain([resolvers]);
        let provoked = provoked.map(|thread| thread.join().map_err(panicked)?);
        let ended: Vec<Result<()>> = churn.chain(provoked).collect();
        ended.into_iter().collect()
    });
    let finished = clients.into_iter().map(|client| client.finish(journal));
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
