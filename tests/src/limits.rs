//! Limits of containers on a machine of its own with cgroup v2: what becomes of a container with each of Docker's
//! limits, compared with what the setup tool predicts.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{Output, Vm};

/// What becomes of a container that is started with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is limited.
    Limited,
    /// It runs as it would without, and Docker says so.
    Unlimited,
    /// It runs as it would without, and Docker says nothing.
    Ignored,
    /// It does not start. Docker names the file of the control group that is missing, or says that it cannot be set.
    Refused,
}

/// A limit that was tried.
#[derive(Debug)]
pub struct Tried {
    /// As the setup tool names it.
    pub option: &'static str,
    /// What became of a container with it.
    pub fate: Fate,
    /// What the setup tool predicted and what happened, if that differs.
    pub surprise: Option<String>,
}

/// A limit, and a program that shows by what it can do whether it holds.
struct Probe {
    /// As the setup tool names it.
    option: &'static str,
    /// The file of the control group that holds it, which a refusal names.
    file: &'static str,
    args: &'static str,
    script: &'static str,
    held: fn(&Output) -> bool,
    /// Whether the program did what the limit would not have let it do. Without either, nothing is known.
    exceeded: fn(&Output) -> bool,
}

/// How the docker command begins what a daemon did not do.
const REFUSAL: &str = "Error response from daemon";

/// Prints how much of a processor a busy loop got, in percent.
const BUSY: &str = r#"
    now() { tr -d . </proc/uptime | cut -d " " -f 1; }
    used() { sed -n "s/^usage_usec //p" /sys/fs/cgroup/cpu.stat; }
    at=$(now); before=$(used); i=0
    while [ $i -lt 30000 ]; do i=$((i + 1)); done
    echo share $((($(used) - before) / 100 / ($(now) - at)))
    echo limit $(cat /sys/fs/cgroup/cpu.max)"#;

/// Prints how long it took to write 2 MiB past the cache and to read them again, in hundredths of a second. In a
/// volume, because fuse-overlayfs cannot write past the cache, and its writes are of another process. With the machine's
/// dd(1), because BusyBox before 1.33 cannot do so either.
const DISK: &str = r#"
    now() { tr -d . </proc/uptime | cut -d " " -f 1; }
    at=$(now); /machine/dd if=/dev/zero of=/v/f bs=1M count=2 oflag=direct 2>/dev/null && echo wrote $(($(now) - at))
    at=$(now); /machine/dd if=/v/f of=/dev/null bs=1M iflag=direct 2>/dev/null && echo read $(($(now) - at))
    echo limit $(cat /sys/fs/cgroup/io.max)"#;

const PROBES: [Probe; 5] = [
    Probe {
        option: "--cpus",
        file: "cpu.max",
        args: "--cpus 0.2",
        script: BUSY,
        held: |seen| {
            seen.stdout.contains("limit 20000 100000")
                && number(seen, "share ").is_some_and(|share| share < 40)
        },
        exceeded: |seen| number(seen, "share ").is_some_and(|share| share >= 40),
    },
    Probe {
        option: "--cpuset-cpus",
        file: "cpuset.cpus",
        args: "--cpuset-cpus 0",
        script: "grep Cpus_allowed_list /proc/self/status; echo limit $(cat /sys/fs/cgroup/cpuset.cpus)",
        // Where there is but one processor, the file alone tells.
        held: |seen| seen.stdout == "Cpus_allowed_list:\t0\nlimit 0\n",
        exceeded: |seen| seen.stdout.contains("Cpus_allowed_list:"),
    },
    Probe {
        option: "--device-read-bps, --device-write-bps",
        file: "io.max",
        args: "-v /v -v /bin:/machine:ro -v /lib:/lib:ro -v /lib64:/lib64:ro \
               --device-read-bps /dev/nvme0n1:1mb --device-write-bps /dev/nvme0n1:1mb",
        script: DISK,
        held: |seen| {
            let slow = |word| number(seen, word).is_some_and(|time| time > 100);
            seen.stdout.contains("rbps=1048576 wbps=1048576") && slow("wrote ") && slow("read ")
        },
        exceeded: |seen| {
            let fast = |word| number(seen, word).is_some_and(|time| time < 100);
            fast("wrote ") && fast("read ")
        },
    },
    Probe {
        option: "--memory",
        file: "memory.max",
        args: "--memory 32m",
        script: "dd if=/dev/zero of=/dev/null bs=96M count=1 && echo all",
        held: |seen| seen.code == 137 && seen.stdout.is_empty(),
        exceeded: |seen| seen.stdout == "all\n",
    },
    Probe {
        option: "--pids-limit",
        file: "pids.max",
        args: "--pids-limit 10",
        script: "for i in $(seq 20); do sleep 100 & done; echo all",
        held: |seen| seen.stderr.contains("can't fork") && seen.stdout.is_empty(),
        exceeded: |seen| seen.stdout == "all\n",
    },
];

/// The number after a word in what a container printed.
fn number(seen: &Output, word: &str) -> Option<u64> {
    seen.stdout.lines().find_map(|line| line.strip_prefix(word)?.parse().ok())
}

/// What happens to a container with each limit, and all that the setup tool says. Takes the image of
/// [`MAKE_IMAGE`](crate::docker::MAKE_IMAGE).
///
/// # Errors
/// A container fails for a reason that has nothing to do with its limit, or the machine fails.
pub fn fates(vm: &mut Vm) -> Result<(Vec<Tried>, Value)> {
    let said = vm.user("dockerd-rootless-setuptool.sh check --json")?.ok()?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let mut fates = Vec::new();
    for probe in &PROBES {
        let mut limits = said["limits"].as_array().into_iter().flatten();
        let limit = limits.find(|limit| limit["option"] == probe.option);
        let limit = limit.with_context(|| format!("no {} in {said:#}", probe.option))?;
        let why_not = limit["why_not"].as_str().unwrap_or_default();
        let predicted = match limit["works"].as_bool() {
            Some(true) => Fate::Limited,
            // What the probe reads and writes is in a volume.
            _ if why_not.ends_with("(it applies to volumes)") => Fate::Limited,
            _ if why_not.ends_with("a container with this option does not start") => Fate::Refused,
            _ => Fate::Unlimited,
        };
        let Probe { file, args, script, held, exceeded, .. } = probe;
        let run = format!("docker run --rm --name c1 {args} bb sh -c '{script}'");
        let mut seen = vm.user(&run)?;
        // Docker loses the output of a container now and then, see `tests::docker::Docker::output`.
        for _ in 0..2 {
            let answered = held(&seen) || seen.stderr.contains(REFUSAL);
            if !answered && seen.stdout.is_empty() {
                seen = vm.user(&run)?;
            }
        }
        let fate = match seen.stderr.as_str() {
            said if held(&seen) && !said.contains("discarded.") => Fate::Limited,
            // Docker 20.10 names no file.
            said if said.contains(REFUSAL)
                && (said.contains(file) || said.contains("can not be set")) =>
            {
                Fate::Refused
            }
            said if said.contains("discarded.") && exceeded(&seen) => Fate::Unlimited,
            _ if exceeded(&seen) => Fate::Ignored,
            _ => bail!("the container fails for another reason: {seen}"),
        };
        let as_predicted =
            (fate == Fate::Ignored && predicted == Fate::Unlimited) || fate == predicted;
        let surprise = (!as_predicted).then(|| format!("predicted: {limit}, but {fate:?}: {seen}"));
        fates.push(Tried { option: probe.option, fate, surprise });
    }
    Ok((fates, said))
}
