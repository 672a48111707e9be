//! What was asked for.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

/// The parts that `--only` names, in the order in which they run.
pub(crate) const PARTS: [&str; 14] = [
    "start",
    "tcp",
    "conn",
    "keepalive",
    "udp",
    "memory",
    SPEED,
    "net-tcp",
    "net-udp",
    "net-requests",
    "net-conn",
    "net-published",
    "net-memory",
    OVERLAY,
];

/// Whole configurations, side by side.
pub(crate) const SPEED: &str = "speed";

/// VXLAN between two hosts.
pub(crate) const OVERLAY: &str = "overlay";

/// Real programs. Only on request, since they are fetched first.
pub(crate) const APPS: &str = "apps";

/// What an egress policy costs. Only on request, since it takes many rounds to see a hundredth.
pub(crate) const POLICY: &str = "policy";

/// What a container that floods costs another one. Only on request, since each sample has a gateway of its own.
pub(crate) const FAIRNESS: &str = "fairness";

/// The parts that run only if `--only` names them.
const ON_REQUEST: [&str; 3] = [APPS, POLICY, FAIRNESS];

/// All parts whose names start so.
const NET: &str = "net";

/// The arguments of the verb.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) pin: bool,
    pub(crate) markdown: bool,
    pub(crate) only: Vec<String>,
    pub(crate) json: Option<PathBuf>,
    /// The rootlesskit to compare with: the program, or a directory that holds it.
    pub(crate) against: Option<PathBuf>,
    pub(crate) ours: Option<PathBuf>,
    /// An earlier build of ours for the parts [`POLICY`] and [`FAIRNESS`]: the program, or a directory that holds it.
    pub(crate) before: Option<PathBuf>,
    /// The results of an earlier run, to draw charts of. Then nothing is measured.
    pub(crate) plot: Option<PathBuf>,
    /// Where charts go.
    pub(crate) out: Option<PathBuf>,
    pub(crate) user: Option<String>,
    rounds: Option<usize>,
    flood_rate: Option<u32>,
    /// Congestion controls of the host: none for the usual one, two to compare them.
    pub(crate) congestion: Vec<String>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self> {
        let mut this = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next().with_context(|| format!("{word} needs a value"))?;
                Ok::<_, anyhow::Error>((*value).to_owned())
            };
            match *word {
                "--quick" => this.quick = true,
                "--pin" => this.pin = true,
                "--markdown" => this.markdown = true,
                "--only" => {
                    let name = value()?;
                    ensure!(
                        PARTS.iter().chain(&ON_REQUEST).any(|part| *part == name) || name == NET,
                        "--only {name:?} is no part of the benchmark\nhint: one of {}, {}, or {NET} for all net-*",
                        PARTS.join(", "),
                        ON_REQUEST.join(", ")
                    );
                    this.only.push(name);
                }
                "--json" => this.json = Some(std::path::absolute(value()?)?),
                "--against" => this.against = Some(std::path::absolute(value()?)?),
                "--before" => this.before = Some(std::path::absolute(value()?)?),
                "--ours" => this.ours = Some(std::path::absolute(value()?)?),
                "--plot" => this.plot = Some(std::path::absolute(value()?)?),
                "--out" => this.out = Some(std::path::absolute(value()?)?),
                "--congestion" => this.congestion = super::congestion::parse(&value()?)?,
                "--user" => this.user = Some(value()?),
                "--rounds" => {
                    let text = value()?;
                    let rounds = text.parse().ok().filter(|n| (1..=100).contains(n));
                    this.rounds =
                        Some(rounds.with_context(|| format!("--rounds {text:?} is not 1 to 100"))?);
                }
                "--flood-rate" => {
                    let text = value()?;
                    let rate = text.parse().ok().filter(|n| (1000..=100_000).contains(n));
                    this.flood_rate =
                        Some(rate.with_context(|| {
                            format!("--flood-rate {text:?} is not 1000 to 100000")
                        })?);
                }
                _ => {
                    bail!("unknown argument {word:?} of cargo xtask bench\nhint: cargo xtask help")
                }
            }
        }
        let drawing = args.iter().filter(|word| word.starts_with("--")).count();
        ensure!(
            this.plot.is_none() || drawing == 1 + usize::from(this.out.is_some()),
            "--plot draws the charts of an earlier run and measures nothing: only --out goes with it"
        );
        ensure!(
            this.plot.is_some() || this.out.is_none(),
            "--out is the directory of charts\nhint: --plot FILE.json draws them"
        );
        ensure!(
            !this.compares() || this.only.is_empty(),
            "--only {:?} has no comparison of two congestion controls\n\
             hint: leave --only out, or give --congestion one name",
            this.only.join(" ")
        );
        ensure!(
            this.before.is_none() || this.wants(POLICY) || this.wants(FAIRNESS),
            "--before names an earlier build for the parts {POLICY} and {FAIRNESS}, which are not measured\nhint: --only {POLICY} or --only {FAIRNESS}"
        );
        ensure!(
            this.flood_rate.is_none() || this.wants(FAIRNESS),
            "--flood-rate is for the part {FAIRNESS}, which is not measured\nhint: --only {FAIRNESS}"
        );
        Ok(this)
    }

    /// Packets per second of a flood. The load generator floods for 1.5 s before connections are measured, so 6,000 packets/s
    /// fill the largest table of the gateway (8,192 flows). At the default rate, a processor that does nothing else has time left
    /// for the container that is measured.
    pub(crate) fn flood_rate(&self) -> u32 {
        self.flood_rate.unwrap_or(10_000)
    }

    /// Whether two congestion controls are compared, and nothing else.
    pub(crate) fn compares(&self) -> bool {
        self.congestion.len() == 2
    }

    pub(crate) fn wants(&self, part: &str) -> bool {
        let named = |part: &str| self.only.iter().any(|name| name == part);
        if self.compares() || ON_REQUEST.contains(&part) {
            return named(part);
        }
        self.only.is_empty() || named(part) || (part.starts_with("net-") && named(NET))
    }

    /// Whether networks are measured at all.
    pub(crate) fn wants_networks(&self) -> bool {
        PARTS.iter().any(|part| part.starts_with("net-") && self.wants(part))
    }

    /// Whether containers behind a bridge are measured.
    pub(crate) fn wants_containers(&self) -> bool {
        self.wants_networks() || self.wants(POLICY) || self.wants(FAIRNESS)
    }

    /// Interleaved rounds of the parts that move data.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 7 })
    }

    /// Interleaved rounds of starting, which is short.
    pub(crate) fn starts(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 8 } else { 25 })
    }

    /// Rounds of publishing ten thousand ports, which is long.
    pub(crate) fn publishes(&self) -> usize {
        self.rounds().min(if self.quick { 1 } else { 3 })
    }

    /// Interleaved rounds of networks, of which there are many.
    pub(crate) fn net_rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    /// Interleaved rounds of real programs, which take whole seconds each.
    pub(crate) fn app_rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// Interleaved rounds of an egress policy, of which the median must be exact.
    pub(crate) fn policy_rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 15 })
    }

    /// Interleaved rounds beside a container that floods.
    pub(crate) fn fairness_rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 7 })
    }

    /// How long one sample takes, given its length in a full run.
    pub(crate) fn sample_ms(&self, full: u32) -> u32 {
        if self.quick { full / 2 } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_bad_ones_named() {
        let options = Options::parse(&["--quick", "--only", "tcp", "--rounds", "2"]).unwrap();
        assert!(options.wants("tcp") && !options.wants("udp"));
        assert_eq!((options.rounds(), options.publishes(), options.sample_ms(1000)), (2, 1, 500));
        assert!(!options.wants_networks() && Options::parse(&[]).unwrap().wants_networks());
        let options = Options::parse(&["--only", "net"]).unwrap();
        assert!(options.wants("net-udp") && !options.wants("udp") && !options.wants(SPEED));
        assert!(!options.wants(OVERLAY) && Options::parse(&[]).unwrap().wants(OVERLAY));
        assert_eq!(options.net_rounds(), 5);
        assert!(!Options::parse(&[]).unwrap().wants(APPS));
        let apps = Options::parse(&["--only", "apps", "--congestion", "cubic"]).unwrap();
        assert!(apps.wants(APPS) && !apps.wants("tcp") && !apps.wants_networks());
        assert!(!Options::parse(&[]).unwrap().wants(POLICY));
        let policy = Options::parse(&["--only", "policy", "--before", "/tmp/old"]).unwrap();
        assert!(policy.wants(POLICY) && !policy.wants(APPS) && !policy.wants_networks());
        assert!(policy.wants_containers() && !apps.wants_containers());
        let fairness = Options::parse(&["--only", FAIRNESS, "--before", "/tmp/old"]).unwrap();
        assert_eq!(fairness.flood_rate(), 10_000);
        assert!(fairness.wants(FAIRNESS) && !fairness.wants(POLICY) && fairness.wants_containers());
        assert_eq!((policy.before, policy.rounds), (Some("/tmp/old".into()), None));
        let both = Options::parse(&["--congestion", "bbr,cubic"]).unwrap();
        assert!(both.compares() && !both.wants("tcp") && !both.wants_networks());
        let plot = Options::parse(&["--plot", "/tmp/a.json", "--out", "/tmp/b"]).unwrap();
        assert_eq!((plot.plot, plot.out), (Some("/tmp/a.json".into()), Some("/tmp/b".into())));
        for (bad, word) in [
            (&["--only", "disk"][..], "disk"),
            (&["--json"], "--json"),
            (&["--rounds", "0"], "\"0\""),
            (&["--fast"], "--fast"),
            (&["--congestion"], "--congestion"),
            (&["--congestion", "a,b,c"], "more than two"),
            (&["--congestion", "bbr,cubic", "--only", "tcp"], "--only \"tcp\""),
            (&["--before", "/tmp/old"], "--only policy"),
            (&["--only", FAIRNESS, "--flood-rate", "10"], "\"10\""),
            (&["--flood-rate", "5000"], "--only fairness"),
            (&["--out", "docs"], "--plot FILE.json"),
            (&["--plot", "a.json", "--quick"], "measures nothing"),
        ] {
            let error = Options::parse(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
