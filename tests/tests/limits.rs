//! Limits of containers on a real cgroup v2, which takes a kernel of one's own: what the setup tool predicts is what
//! happens, with the controllers that systemd gives to users by itself and with those of the documented drop-in.

use serde_json::Value;
use tests::docker::MAKE_IMAGE;
use tests::{Context, Output, Result, Suite, Vm, bail, ensure};

const TOOL: &str = "dockerd-rootless-setuptool.sh";

/// What becomes of a container that is started with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Limited,
    /// It runs as it would without, and Docker says so.
    Unlimited,
    Refused,
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
}

/// How the docker command begins what a daemon did not do.
const REFUSAL: &str = "Error response from daemon";

/// Prints how much of a processor a busy loop got, in percent.
const BUSY: &str = r#"
    now() { tr -d . </proc/uptime | cut -d " " -f 1; }
    used() { sed -n "s/^usage_usec //p" /sys/fs/cgroup/cpu.stat; }
    at=$(now); before=$(used); i=0
    while [ $i -lt 30000 ]; do i=$((i + 1)); done
    echo share $((($(used) - before) / 100 / ($(now) - at)))"#;

/// Prints how long it took to write 2 MiB past the cache and to read them again, in hundredths of a second.
const DISK: &str = r#"
    now() { tr -d . </proc/uptime | cut -d " " -f 1; }
    at=$(now); dd if=/dev/zero of=/tmp/f bs=1M count=2 oflag=direct 2>/dev/null && echo wrote $(($(now) - at))
    at=$(now); dd if=/tmp/f of=/dev/null bs=1M iflag=direct 2>/dev/null && echo read $(($(now) - at))
    echo limit $(cat /sys/fs/cgroup/io.max)"#;

const PROBES: [Probe; 5] = [
    Probe {
        option: "--cpus",
        file: "cpu.max",
        args: "--cpus 0.2",
        script: BUSY,
        held: |seen| number(seen, "share ").is_some_and(|share| share < 40),
    },
    Probe {
        option: "--cpuset-cpus",
        file: "cpuset.cpus",
        args: "--cpuset-cpus 1",
        script: "grep Cpus_allowed_list /proc/self/status; nproc",
        held: |seen| seen.stdout == "Cpus_allowed_list:\t1\n1\n",
    },
    Probe {
        option: "--device-read-bps, --device-write-bps",
        file: "io.max",
        args: "--device-read-bps /dev/nvme0n1:1mb --device-write-bps /dev/nvme0n1:1mb",
        script: DISK,
        held: |seen| {
            let slow = |word| number(seen, word).is_some_and(|time| time > 100);
            seen.stdout.contains("rbps=1048576 wbps=1048576") && slow("wrote ") && slow("read ")
        },
    },
    Probe {
        option: "--memory",
        file: "memory.max",
        args: "--memory 32m",
        script: "dd if=/dev/zero of=/dev/null bs=96M count=1 && echo all",
        held: |seen| seen.code == 137 && seen.stdout.is_empty(),
    },
    Probe {
        option: "--pids-limit",
        file: "pids.max",
        args: "--pids-limit 10",
        script: "for i in $(seq 20); do sleep 100 & done; echo all",
        held: |seen| seen.stderr.contains("can't fork") && seen.stdout.is_empty(),
    },
];

/// The number after a word in what a container printed.
fn number(seen: &Output, word: &str) -> Option<u64> {
    seen.stdout.lines().find_map(|line| line.strip_prefix(word)?.parse().ok())
}

/// What happens to a container with each limit, after having made sure that this is what the setup tool predicts; and all
/// that the setup tool says.
fn fates(vm: &mut Vm) -> Result<(Vec<Fate>, Value)> {
    let said = vm.user(&format!("{TOOL} check --json"))?.ok()?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let mut fates = Vec::new();
    for probe in &PROBES {
        let mut limits = said["limits"].as_array().into_iter().flatten();
        let limit = limits.find(|limit| limit["option"] == probe.option);
        let limit = limit.with_context(|| format!("no {} in {said:#}", probe.option))?;
        let why_not = limit["why_not"].as_str().unwrap_or_default();
        let predicted = match limit["works"].as_bool() {
            Some(true) => Fate::Limited,
            _ if why_not.ends_with("a container with this option does not start") => Fate::Refused,
            _ => Fate::Unlimited,
        };
        let Probe { file, args, script, held, .. } = probe;
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
            _ if held(&seen) => Fate::Limited,
            said if said.contains(REFUSAL) && said.contains(file) => Fate::Refused,
            said if said.contains("discarded.") && seen.code == 0 => Fate::Unlimited,
            _ => bail!("the limit does not hold, and Docker does not say so: {seen}"),
        };
        ensure!(fate == predicted, "predicted: {limit}, but {fate:?}: {seen}");
        fates.push(fate);
    }
    Ok((fates, said))
}

#[test]
fn limits_do_what_the_setup_tool_predicts() -> Result<()> {
    use Fate::{Limited, Refused, Unlimited};
    let mut vm = Vm::boot(Suite::Sid)?;
    // By itself systemd gives users cpu, memory and pids. A weight for the user's slice gives io to the slice alone.
    vm.root("systemctl set-property --runtime user-1001.slice IOWeight=50")?.ok()?;
    vm.user(&format!("{TOOL} install"))?.ok()?;
    vm.user(MAKE_IMAGE)?.ok()?;
    let (without, said) = fates(&mut vm)?;
    assert_eq!(without, [Limited, Unlimited, Refused, Limited, Limited]);

    // What the administrator is told to do.
    let block = said["admin_script"].as_str().with_context(|| format!("{said:#}"))?;
    ensure!(block.contains("user@.service.d/delegate.conf"), "{block}");
    vm.root(&format!("sudo() {{ \"$@\"; }}\n{block}"))?.ok()?;
    let restart = "systemctl restart user@1001.service";
    ensure!(said.to_string().contains(&format!("or: sudo {restart}")), "{said:#}");
    vm.root(restart)?.ok()?;
    let up = "until docker version; do sleep 0.2; done";
    vm.user(up)?.ok().context("the daemon comes back with the session")?;
    let (with, said) = fates(&mut vm)?;
    assert_eq!((with, &said["admin_script"]), (vec![Limited; 5], &Value::Null), "{said:#}");

    vm.user("docker run -d --name web --stop-signal KILL -p 8080:80 bb httpd -f -h /www")?.ok()?;
    let get = "curl -sS -m 10 --retry 30 --retry-delay 1 --retry-all-errors http://127.0.0.1:8080/";
    assert_eq!(vm.user(get)?.ok()?, "hello-from-container\n");
    Ok(())
}
