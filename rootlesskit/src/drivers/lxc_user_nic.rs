//! `--net=lxc-user-nic`: a veth pair between a bridge of the administrator and the namespace, made by LXC's setuid
//! program (lxc-user-nic(1), lxc-usernet(5)). The kernel moves every packet, so nothing is faster; what the child may
//! reach is the bridge's business.
//!
//! The program ends when the pair is there. The child gets its address by DHCP. The pair goes with the namespace, and
//! lxc-user-nic forgets it the next time it runs.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use drivers::NetworkDriver;
use hostenv::Env;
use hostenv::helper::Helper;

use super::{Flags, Namespace, Network, Program, Service, Starting, no_cidr};
use crate::exit::Words;
use crate::plan::{Device, Dhcp, NetworkPlan, Uplink};

const LXC_USER_NIC_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct LxcUserNic {
    binary: PathBuf,
    bridge: String,
    ifname: String,
    env: Env,
}

pub(super) fn network(flags: Flags<'_>) -> anyhow::Result<Network> {
    let Flags { cli, env, .. } = flags;
    let driver = NetworkDriver::LxcUserNic;
    no_cidr(driver, cli)?;
    tracing::warn!("\"lxc-user-nic\" network driver is experimental");
    if !cli.disable_host_loopback {
        tracing::warn!("--disable-host-loopback is implicitly set for --net=lxc-user-nic");
    }
    let binary = find(&cli.lxc_user_nic_binary, &usual_paths(), env)?;
    let name = cli.ifname_or(driver.default_ifname());
    let program = LxcUserNic::new(binary, &cli.lxc_user_nic_bridge, name.clone(), env)?;
    let mtu = cli.mtu_or(driver.default_mtu());
    let uplink = Uplink::Dhcp(Dhcp { name, mtu, device: Device::Veth });
    Ok(Network {
        info: info(),
        plan: NetworkPlan { uplink, dns: Vec::new() },
        service: Service::Program(Box::new(program)),
    })
}

/// Neither address nor name servers: both may change while we run.
fn info() -> api::NetworkDriverInfo {
    api::NetworkDriverInfo {
        driver: NetworkDriver::LxcUserNic.to_string(),
        dynamic_child_ip: true,
        ..Default::default()
    }
}

/// Where distributions install the program; it is never in `$PATH`.
fn usual_paths() -> Vec<PathBuf> {
    let machine = nix::sys::utsname::uname();
    let machine = machine.as_ref().map(|names| names.machine().to_string_lossy());
    let debian = machine.map(|m| format!("/usr/lib/{m}-linux-gnu/lxc/lxc-user-nic"));
    let mut paths = vec![PathBuf::from("/usr/libexec/lxc/lxc-user-nic")];
    paths.extend(debian.map(PathBuf::from));
    paths.push("/usr/lib/lxc/lxc-user-nic".into());
    paths
}

/// The program that `--lxc-user-nic-binary` names; without that, the first of the usual ones.
fn find(flag: &str, usual: &[PathBuf], env: &Env) -> anyhow::Result<PathBuf> {
    if flag.is_empty() {
        return usual.iter().find(|path| path.exists()).cloned().with_context(|| {
            let list: Vec<_> = usual.iter().map(|p| p.display().to_string()).collect();
            format!("lxc-user-nic was not found ({}), but --net=lxc-user-nic needs it\nhint: install the package lxc, or specify the program with --lxc-user-nic-binary", list.join(", "))
        });
    }
    env.find_program(flag).with_context(|| {
        format!("{flag} cannot be executed, but --net=lxc-user-nic needs it\nhint: install the package lxc, or specify the program with --lxc-user-nic-binary")
    })
}

impl LxcUserNic {
    fn new(binary: PathBuf, bridge: &str, ifname: String, env: &Env) -> anyhow::Result<Self> {
        if bridge.is_empty() || bridge.len() > 15 || bridge.contains(['/', ' ', '\n']) {
            bail!("invalid --lxc-user-nic-bridge={bridge}: must be the name of a bridge");
        }
        Ok(Self { binary, bridge: bridge.to_owned(), ifname, env: env.clone() })
    }

    /// The first two are an LXC path and a container's name, which matter to nobody here.
    fn args(&self, task: i32) -> [String; 7] {
        let [create, path, name, veth] =
            ["create", "/dev/null", "dummy", "veth"].map(str::to_owned);
        [create, path, name, task.to_string(), veth, self.bridge.clone(), self.ifname.clone()]
    }

    fn hint(&self) -> String {
        let bridge = &self.bridge;
        format!(
            "ask an administrator to allow the connection and to create the bridge: echo \"$(id -un) veth {bridge} 10\" | sudo tee -a /etc/lxc/lxc-usernet; sudo systemctl enable --now lxc-net"
        )
    }
}

/// A task of the child that is in the namespace; a detached one has only its network thread in it. The program and the
/// kernel take a thread's number as they take that of a process.
fn task_in(ns: &Namespace, proc: &Path) -> anyhow::Result<i32> {
    let child = ns.child.as_raw();
    let Some(path) = &ns.netns else { return Ok(child) };
    let failed = || format!("failed to inspect {}", path.display());
    let wanted = std::fs::metadata(path).with_context(failed)?;
    let tasks = proc.join(child.to_string()).join("task");
    for entry in std::fs::read_dir(&tasks).with_context(failed)?.flatten() {
        let same = std::fs::metadata(entry.path().join("ns/net"))
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()));
        if let Some(task) = entry.file_name().to_str().filter(|_| same) {
            return Ok(task.parse()?);
        }
    }
    bail!("no thread of the child is in the network namespace {}", path.display())
}

impl Program for LxcUserNic {
    fn start(&self, ns: &Namespace) -> anyhow::Result<Option<Starting>> {
        let args = self.args(task_in(ns, Path::new("/proc"))?);
        let output =
            Helper::start(&self.binary, &args, &self.env, LXC_USER_NIC_TIMEOUT)?.finish()?;
        if !output.status.success() {
            bail!(
                "{} {} failed: {}: {}\nhint: {}",
                self.binary.display(),
                args.join(" "),
                Words(output.status),
                output.text().replace('\n', "; "),
                self.hint()
            );
        }
        tracing::debug!("[lxc-user-nic] {}", output.text());
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Pid;

    fn env() -> Env {
        [("PATH", "/usr/bin:/bin")].into_iter().collect()
    }

    fn driver(binary: &str) -> LxcUserNic {
        LxcUserNic::new(binary.into(), "lxcbr0", "eth0".into(), &env()).unwrap()
    }

    fn ns() -> Namespace {
        Namespace { child: Pid::from_raw(42), netns: None, state_dir: "/s".into() }
    }

    #[test]
    fn the_command_line_is_the_documented_one() {
        let args = driver("/x").args(42).join(" ");
        assert_eq!(args, "create /dev/null dummy 42 veth lxcbr0 eth0");
        let info = info();
        assert!(info.dynamic_child_ip && info.child_ip.is_none() && info.dns.is_empty());
    }

    #[test]
    fn a_refusal_is_passed_on_with_the_remedy() {
        let error = driver("/bin/false").start(&ns()).unwrap_err().to_string();
        assert!(error.contains("failed: exit status 1"), "{error}");
        assert!(error.contains("veth lxcbr0 10\" | sudo tee -a /etc/lxc/lxc-usernet"), "{error}");
        assert!(driver("/bin/true").start(&ns()).unwrap().is_none(), "it does not stay");
    }

    #[test]
    fn the_program_is_named_or_found() {
        let usual = [PathBuf::from("/nonexistent"), "/bin/true".into()];
        assert_eq!(find("", &usual, &env()).unwrap(), Path::new("/bin/true"));
        assert_eq!(find("/bin/false", &usual, &env()).unwrap(), Path::new("/bin/false"));
        let error = find("", &usual[..1], &env()).unwrap_err().to_string();
        assert!(error.contains("/nonexistent") && error.contains("hint: install"), "{error}");
        let error = find("/nonexistent", &usual, &env()).unwrap_err().to_string();
        assert!(error.contains("/nonexistent cannot be executed"), "{error}");
        assert!(usual_paths().len() == 3);
        assert!(LxcUserNic::new("/x".into(), "a/b", "eth0".into(), &env()).is_err());
    }

    #[test]
    fn a_thread_of_a_namespace_is_found_by_the_namespace() {
        let (told, tid) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            told.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = stopped.recv();
        });
        let tid = tid.recv().unwrap();
        let netns = Some(PathBuf::from(format!("/proc/{tid}/ns/net")));
        let ns = Namespace { child: nix::unistd::getpid(), netns, ..ns() };
        assert_eq!(task_in(&ns, Path::new("/proc")).unwrap(), tid);
        let elsewhere = Namespace { child: Pid::from_raw(1), ..ns };
        assert!(task_in(&elsewhere, Path::new("/proc")).is_err());
        drop(stop);
        thread.join().unwrap();
    }
}
