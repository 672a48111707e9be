//! Error messages of Docker and its helpers, and what they mean.

mod table;

pub use table::SYMPTOMS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symptom {
    /// Stable name for tools and searches. Messages that mean the same share it.
    pub code: &'static str,
    /// What occurs in a line of the message: fragments that have been stable over the releases, in this order, with ` … `
    /// between them.
    pub token: &'static str,
    pub cause: &'static str,
    pub fix: &'static str,
}

impl Symptom {
    fn explains(&self, text: &str) -> bool {
        let fragments_in = |line: &str| {
            let mut rest = line;
            self.token.split(" … ").all(|fragment| {
                let after = rest.split_once(fragment).map(|(_, after)| after);
                rest = after.unwrap_or_default();
                after.is_some()
            })
        };
        text.lines().filter(|line| !is_trace(line)).any(fragments_in)
    }
}

pub fn find(text: &str) -> Option<&'static Symptom> {
    SYMPTOMS.iter().find(|symptom| symptom.explains(text))
}

/// Whether a shell with `set -x`, as Docker's own launcher has it, says what it runs: flags and values, but no error. The
/// journal writes `date host name[pid]: ` in front.
fn is_trace(line: &str) -> bool {
    let message = line.split_once("]: ").map_or(line, |(_, message)| message);
    message.starts_with('+') && message.trim_start_matches('+').starts_with(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole messages as Docker and its helpers print them.
    const MESSAGES: [(&str, &str); 65] = [
        ("log-xtables-lock", "Fatal: can't open lock file /run/xtables.lock: Permission denied"),
        (
            "log-userns-eperm",
            "[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: operation not permitted",
        ),
        ("log-userns-eacces", "fork/exec /proc/self/exe: permission denied"),
        ("log-userns-enospc", "fork/exec /proc/self/exe: no space left on device"),
        ("log-userns-einval", "fork/exec /proc/self/exe: invalid argument"),
        ("log-userns-enosys", "fork/exec /proc/self/exe: function not implemented"),
        (
            "log-subuid",
            "failed to setup UID/GID map: No subuid ranges found for user 1001 (\"testuser\")",
        ),
        ("log-subgid", "No subgid ranges found for user 1001 (\"testuser\")"),
        (
            "log-uid-map",
            "newuidmap 7 [0 1000 1 1 100000 65536] failed: newuidmap: write to uid_map failed: Operation not permitted",
        ),
        ("log-uid-map", "newuidmap: open of uid_map failed: Permission denied"),
        ("log-gid-map", "newgidmap: open of gid_map failed: Permission denied"),
        (
            "log-port-allocated",
            "Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:8080 failed: port is already allocated",
        ),
        (
            "log-proxy",
            "Get \"https://registry-1.docker.io/v2/\": proxyconnect tcp: dial tcp 127.0.0.1:3128: connect: connection refused",
        ),
        ("log-gid-map", "newgidmap: write to gid_map failed: Operation not permitted"),
        ("log-runtime-dir", "could not get XDG_RUNTIME_DIR"),
        ("log-runtime-dir", "XDG_RUNTIME_DIR needs to be set"),
        ("log-bus", "Failed to connect to bus: No such file or directory"),
        ("log-bus", "Failed to connect to bus: No medium found"),
        ("log-bus", "Failed to connect to user scope bus via local transport: No medium found"),
        ("log-no-systemd", "[INFO] systemd not detected, dockerd-rootless.sh needs to be started"),
        ("log-bus-unit", "Failed to start docker.service: Unit dbus.socket not found."),
        (
            "log-bus-reset",
            "read unix @->/run/systemd/private: read: connection reset by peer: unknown.",
        ),
        ("log-bus-auth", "error during container init: Interactive authentication required."),
        (
            "log-containerd-rootless",
            "[ERROR] /run/user/1000/containerd-rootless conflicts with containerd-rootless",
        ),
        (
            "log-second-daemon",
            "another RootlessKit is running with the same state directory (\"/run/user/1000/x\")",
        ),
        ("log-no-rootlesskit", "dockerd needs to be started with root privileges. To run dockerd"),
        ("log-not-rootless", "rootless mode needs to be enabled for running with RootlessKit"),
        (
            "log-cgroup-driver",
            "exec-opt native.cgroupdriver=systemd requires cgroup v2 for rootless",
        ),
        ("log-docker-proxy", "invalid userland-proxy-path: userland-proxy is enabled, but"),
        ("log-old-rootlesskit", "probably RootlessKit binary is too old (needs to be v0.14.0)"),
        ("log-overlay-selinux", "overlay is not supported for Rootless with SELinux"),
        ("log-low-port", "cannot expose privileged port 80, you can add"),
        (
            "log-port-twice",
            "failed to bind host port: listen tcp 10.0.2.100:80: bind: address already in use",
        ),
        (
            "log-port-loopback",
            "failed to bind host port 127.0.0.2:80/tcp: cannot assign requested address",
        ),
        (
            "log-port-race",
            "error while calling RootlessKit PortManager.AddPort(): listen tcp4 0.0.0.0:32768: bind: address already in use",
        ),
        ("log-fsmount", "apparmor failed to apply profile: write fsmount:fscontext:/proc"),
        ("log-port-protocol", "protocol \"tcp6\" is not supported by the RootlessKit port driver"),
        ("log-btrfs", "Failed to destroy btrfs snapshot a for b: operation not permitted"),
        (
            "log-cgroup-systemd",
            "WARNING: Running in rootless-mode without cgroups. Systemd is required to enable cgroups in rootless-mode.",
        ),
        (
            "log-cgroup-v1",
            "WARNING: Running in rootless-mode without cgroups. To enable cgroups in rootless-mode, you need to boot",
        ),
        (
            "log-cgroup-delegation",
            "WARNING: Your kernel does not support memory limit capabilities. Limitation discarded.",
        ),
        ("log-iproute2", "executing [[ip tuntap add name tap0 mode tap]]: exit status 1"),
        ("log-sandbox", "cannot create_sandbox: mount: operation not permitted"),
        ("log-sandbox", "slirp4netns failed: sandbox: pivot_root: invalid argument"),
        ("log-pasta", "Couldn't open user namespace /proc/7/ns/user: Permission denied"),
        ("log-proc", "error mounting \"proc\" to rootfs at \"/proc\": operation not permitted"),
        (
            "log-docker-host",
            "Warning: DOCKER_HOST environment variable overrides the active context",
        ),
        (
            "log-socket-denied",
            "permission denied while trying to connect to the Docker daemon socket at unix:///x",
        ),
        ("log-no-daemon", "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon"),
        ("log-x509", "tls: failed to verify: x509: certificate signed by unknown authority"),
        ("log-lchown-ids", "failed to register layer: lchown /x: invalid argument"),
        ("log-lchown-nfs", "failed to register layer: lchown /x: operation not permitted"),
        (
            "log-quota",
            "failed to start daemon: Unable to get the TempDir under /x: mkdir /x/tmp: disk quota exceeded",
        ),
        (
            "log-space",
            "failed to start daemon: Unable to get the TempDir under /x: mkdir /x/tmp: no space left on device",
        ),
        (
            "log-cgroup-space",
            "runc create failed: unable to start container process: unable to apply cgroup configuration: mkdir /sys/fs/cgroup/user.slice/docker-0e.scope: no space left on device: unknown",
        ),
        (
            "log-cgroup-cpuset",
            "unable to apply cgroup configuration: failed to write 7: write /sys/fs/cgroup/user.slice/docker-0e.scope/cgroup.procs: no space left on device: unknown",
        ),
        ("log-space", "failed to register layer: write /big: no space left on device"),
        (
            "log-snapshotter",
            "failed to extract layer sha256:e9af: failed to mount /x/containerd/daemon/tmpmounts/containerd-mount2764004990: operation not permitted: unknown",
        ),
        ("log-sysctl", "failed to write to /proc/sys/net/ipv4/ip_forward: read-only file system"),
        (
            "log-swarm-directory",
            "fatal task error\" error=\"mkdir /var/lib/docker: permission denied\" module=node/agent/taskmanager",
        ),
        (
            "log-swarm-vxlan",
            "subnet sandbox join failed for \"10.0.1.0/24\": error creating vxlan interface: operation not supported",
        ),
        (
            "log-swarm-vip",
            "Failed to create an ipvs handle for sbox 1fa2b3c (ingress,/x) for lb addition: operation not permitted",
        ),
        (
            "log-swarm-vip",
            "Failed to create a new service for vip 10.0.1.2 fwmark 256 in sbox 1fa2b3c (lb_x): operation not permitted",
        ),
        ("log-start-limit", "docker.service: Start request repeated too quickly."),
        ("log-context", "Current context \"x\" is not found on the file system, please check"),
    ];

    /// What Docker's launcher prints on every start, with the journal's prefix and without.
    const TRACE: &str = "Nov 22 18:00:00 h dockerd-rootless.sh[7]: + exec rootlesskit --net=slirp4netns --mtu=65520 \
                         --slirp4netns-sandbox=auto --slirp4netns-seccomp=auto --copy-up=/etc\n\
                         + exec rootlesskit --net=slirp4netns --slirp4netns-sandbox=auto\n\
                         ++ echo slirp4netns failed without a sandbox";

    #[test]
    fn messages_are_explained() {
        for (code, text) in MESSAGES {
            // Other lines of a log are around it.
            let log = format!("all is well\n{TRACE}\n{text}\nbye");
            let symptom = find(&log).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(symptom.code, code, "{text}: {symptom:?}");
        }
        assert_eq!(find("all is well"), None);
        assert_eq!(find(TRACE), None);
        assert_eq!(
            find("--net=slirp4netns --slirp4netns-sandbox=auto"),
            None,
            "a flag is no error"
        );
        let logged =
            "Nov 22 18:00:00 h dockerd-rootless.sh[7]: slirp4netns failed: sandbox: EINVAL";
        assert_eq!(find(logged).unwrap().code, "log-sandbox");
        assert_eq!(find("lchown\ninvalid argument"), None, "a message is one line");
    }

    #[test]
    fn every_entry_can_be_found() {
        for (index, symptom) in SYMPTOMS.iter().enumerate() {
            let found = find(symptom.token).unwrap();
            assert_eq!(found, symptom, "entry {index} hides behind an earlier one");
        }
    }

    /// Whoever reads it may be running `check` already.
    #[test]
    fn no_remedy_sends_in_a_circle() {
        for symptom in SYMPTOMS {
            let fix = symptom.fix.replace("setuptool.sh check` prints", "");
            assert!(!fix.contains("setuptool.sh check"), "{symptom:?}");
            assert!(symptom.code.starts_with("log-"), "{symptom:?}");
        }
    }
}
