//! A daemon that is a node of a swarm (`DOCKERD_ROOTLESS_SWARM`, see [`hostenv::swarm`]).
//!
//! Three things stand in the way of a rootless node. The other nodes cannot reach it, so its ports are published. It would
//! tell them an address of its own network namespace, so dockerd gets the host's. And libnetwork keeps files of the swarm's
//! networks below `/var/lib/docker`, whatever the data directory is
//! (<https://github.com/moby/moby/blob/v28.5.2/libnetwork/sandbox_dns_unix.go>), so a private tmpfs is there. They are files
//! of running sandboxes: nothing in them outlives the daemon.
//!
//! A user's services start when the host has booted, which may be before it has an address (DHCP). So the launcher waits for
//! it, as rootlesskit cannot listen on an address that is not there.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drivers::{NetworkDriver, PortDriver};
use hostenv::swarm::Swarm;
use hostenv::{Env, dirs, vars};
use nix::mount::{MsFlags, mount};
use nix::unistd::{AccessFlags, eaccess};

use crate::config::Config;
use crate::removal;
use crate::report::{Failure, Note};
use crate::settings::Settings;

/// Where libnetwork writes, below the root.
const LIBNETWORK: &str = "var/lib/docker";
/// What is copied up if the directory does not exist. Only root can create it in the host's directory.
const PARENT: &str = "var/lib";

/// How long the host may take to get its address.
pub(crate) const ADDRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// The option of dockerd (1.13 and later), also its name in the configuration file.
const ADDRESS_FLAG: &str = "swarm-default-advertise-addr";

/// Refuses the drivers that make no node. A node knows the others by the source address of their datagrams, which `builtin`
/// loses: the nodes would look ready, and no container would reach another. The other drivers carry overlay networks, but
/// not for the peers only.
///
/// # Errors
/// One of the drivers in force is not the gateway's.
pub(crate) fn check_drivers(
    settings: &Settings,
    net: &str,
    port_driver: &str,
) -> Result<(), Failure> {
    if net == NetworkDriver::Gateway.name() && port_driver == PortDriver::Gateway.name() {
        return Ok(());
    }
    let why = if port_driver == PortDriver::Builtin.name() {
        "containers on different nodes could not reach each other"
    } else {
        "hosts other than the peers could send packets into the overlay networks"
    };
    let first =
        removal::for_gateway(&settings.flags, (settings.net, settings.port_driver), |ports| {
            ports == PortDriver::Gateway
        });
    let name = vars::DOCKERD_ROOTLESS_SWARM;
    let value = settings.swarm.as_ref().map(ToString::to_string).unwrap_or_default();
    Err(Failure::new(format!(
        "{name} is \"{value}\", but a node of a swarm does not work with the network driver {net} and the port driver \
         {port_driver}: {why}"
    ))
    .hint(format!("{first}, or {}", removal::variable(name))))
}

/// Waits until the node's address is one of this host's, or `limit` has passed.
///
/// # Errors
/// It is none then.
pub(crate) fn await_address(address: IpAddr, limit: Duration) -> Result<(), Failure> {
    let mut end = Instant::now() + limit;
    let mut said = false;
    // Before the first look, so that nothing is missed between a look and the wait for the next.
    let changes = netlink::AddressChanges::listen();
    while let Err(error) = UdpSocket::bind((address, 0)) {
        let left = end.saturating_duration_since(Instant::now());
        let waits = error.kind() == io::ErrorKind::AddrNotAvailable && !left.is_zero();
        let Some(changes) = changes.as_ref().ok().filter(|_| waits) else {
            return Err(Failure::new(format!(
                "{} names the address {address}, which is not usable on this host: {error}",
                vars::DOCKERD_ROOTLESS_SWARM
            ))
            .hint("run ip address to list the host's addresses, and name the one that the other nodes can reach"));
        };
        if !std::mem::replace(&mut said, true) {
            let seconds = limit.as_secs();
            Note::info(format!(
                "this host does not have the address {address} yet; waiting for it for up to {seconds} seconds"
            ))
            .print();
        }
        // If it cannot be waited for, the next look is the last one.
        if changes.wait(left).is_err() {
            end = Instant::now();
        }
    }
    Ok(())
}

/// Whether rootlesskit has to copy up [`PARENT`], so that [`LIBNETWORK`] can be created. A mount on a link would be one on
/// its target, which may lead anywhere.
pub(crate) fn copies_up(root: &Path) -> bool {
    !fs::symlink_metadata(root.join(LIBNETWORK)).is_ok_and(|meta| meta.is_dir())
}

/// Refuses to copy up a directory that the user's own directories are in. They would get a path that changes with each
/// start, and dockerd stores such paths.
///
/// # Errors
/// One of the directories is there.
pub(crate) fn check_directories(
    root: &Path,
    env: &Env,
    config: &Config<'_>,
) -> Result<(), Failure> {
    let Ok(parent) = root.join(PARENT).canonicalize() else { return Ok(()) };
    let data = config.text("data-root").map(PathBuf::from);
    let own = [
        dirs::home(env).ok(),
        dirs::config_home(env).ok(),
        data.or_else(|| Some(dirs::data_home(env).ok()?.join("docker"))),
    ];
    let below = |path: &PathBuf| existing(path).is_some_and(|path| path.starts_with(&parent));
    let Some(path) = own.into_iter().flatten().find(below) else { return Ok(()) };
    let directory = root.join(LIBNETWORK);
    Err(Failure::new(format!(
        "{} is set, and dockerd then needs the directory {}, which does not exist. Your own directory {} is below {}, so \
         that cannot be replaced by a copy",
        vars::DOCKERD_ROOTLESS_SWARM,
        directory.display(),
        path.display(),
        parent.display()
    ))
    .hint(format!("create it as root: mkdir {}", directory.display())))
}

/// The path, or the nearest directory above it that exists, without links.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|path| path.canonicalize().ok())
}

/// Puts an empty directory in the place of [`LIBNETWORK`], in the mount namespace that we are in. One that dockerd can
/// write to anyway stays: it may be the data directory.
///
/// # Errors
/// It can be neither created nor mounted over.
pub(crate) fn give_directory(root: &Path) -> Result<(), Failure> {
    let directory = root.join(LIBNETWORK);
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        Failure::new(format!(
            "cannot {what} {}, which dockerd needs as a node of a swarm: {e}",
            directory.display()
        ))
        .hint(format!(
            "create the directory as root, or remove {} from the daemon's settings",
            vars::DOCKERD_ROOTLESS_SWARM
        ))
    };
    match fs::symlink_metadata(&directory) {
        // A copy of the host's link.
        Ok(meta) if meta.is_symlink() => {
            fs::remove_file(&directory).map_err(|e| failed("replace the link", &e))?;
        }
        Ok(_) if eaccess(&directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok() => {
            return Ok(());
        }
        Ok(_) => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            let options = Some("mode=0710");
            return mount(Some("tmpfs"), &directory, Some("tmpfs"), flags, options)
                .map_err(|e| failed("mount a private directory on", &e.desc()));
        }
        Err(_) => {}
    }
    fs::create_dir(&directory).map_err(|e| failed("create", &e))?;
    keep_others_out(&directory).map_err(|e| failed("mount", &e.desc()))
}

/// Makes the copy around a directory read-only. What dockerd created in it, such as the source of a bind mount, would be lost
/// with the namespace; now that fails, as it does in the host's directory.
fn keep_others_out(directory: &Path) -> nix::Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    let device = |path: &Path| path.metadata().ok().map(|meta| meta.dev());
    if device(parent) == parent.parent().and_then(device) {
        // No mount of its own, so no copy.
        return Ok(());
    }
    let none = None::<&str>;
    mount(Some(directory), directory, none, MsFlags::MS_BIND, none)?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, parent, none, read_only, none)
}

/// Options for dockerd: the address that it tells the other nodes, unless the user has chosen one.
pub(crate) fn options(swarm: &Swarm, config: &Config<'_>) -> Vec<OsString> {
    if config.sets(ADDRESS_FLAG, &[ADDRESS_FLAG]) {
        return Vec::new();
    }
    vec![format!("--{ADDRESS_FLAG}={}", swarm.address).into()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::env_of;
    use nix::sched::{CloneFlags, setns, unshare};
    use std::os::unix::fs::symlink;

    #[test]
    fn only_the_gateway_makes_a_node_and_the_reason_is_that_of_the_driver() {
        let env = env_of(&[(vars::XDG_RUNTIME_DIR, "/run/user/1000")]);
        let settings = Settings::read(&env).unwrap();
        assert_eq!(check_drivers(&settings, "gateway", "gateway"), Ok(()));
        for (net, ports, why) in [
            ("gateway", "builtin", "could not reach each other"),
            ("slirp4netns", "slirp4netns", "hosts other than the peers could send"),
            ("pasta", "pesto", "hosts other than the peers could send"),
        ] {
            let error = check_drivers(&settings, net, ports).unwrap_err().to_string();
            let both = format!("the network driver {net} and the port driver {ports}");
            assert!(error.contains(&both) && error.contains(why), "{error}");
            assert!(error.contains("\nhint: "), "{error}");
        }
    }

    #[test]
    fn the_directory_of_libnetwork_is_copied_up_unless_it_can_be_mounted_over() {
        let root = tempfile::tempdir().unwrap();
        assert!(copies_up(root.path()), "missing");
        fs::create_dir_all(root.path().join("var/lib/elsewhere")).unwrap();
        symlink("elsewhere", root.path().join("var/lib/docker")).unwrap();
        assert!(copies_up(root.path()), "a link");
        give_directory(root.path()).unwrap();
        assert!(!copies_up(root.path()), "a directory in place of the link");
        assert!(root.path().join("var/lib/elsewhere").exists());
        fs::write(root.path().join("var/lib/docker/data"), "kept").unwrap();
        give_directory(root.path()).unwrap();
        let kept = fs::read_to_string(root.path().join("var/lib/docker/data")).unwrap();
        assert_eq!(kept, "kept", "one that can be written to");
        let error = give_directory(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent/var/lib/docker") && error.contains("hint: "),
            "{error}"
        );
    }

    #[test]
    fn own_directories_below_a_copy_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("var/lib/jane");
        fs::create_dir_all(&home).unwrap();
        let elsewhere = root.path().join("home/jane");
        fs::create_dir_all(&elsewhere).unwrap();
        let check = |home: &Path, args: &[&str]| {
            let env = env_of(&[("HOME", home.to_str().unwrap())]);
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            let given: [&[OsString]; 1] = [&args];
            check_directories(root.path(), &env, &Config::read(&env, &given))
        };
        let error = check(&home, &[]).unwrap_err().to_string();
        assert!(
            error.contains("jane") && error.contains("hint: create it as root: mkdir "),
            "{error}"
        );
        assert_eq!(check(&elsewhere, &[]), Ok(()));
        let data = format!("--data-root={}", home.join("not/yet").display());
        assert!(check(&elsewhere, &[&data]).is_err());
        assert_eq!(check(&elsewhere, &["--data-root=/nonexistent"]), Ok(()));
    }

    #[test]
    fn an_address_that_the_user_chose_stays() {
        let swarm: Swarm = "192.0.2.10,peers=192.0.2.0/24".parse().unwrap();
        let env = Env::default();
        assert_eq!(
            options(&swarm, &Config::read(&env, &[])),
            ["--swarm-default-advertise-addr=192.0.2.10"]
        );
        let given = [OsString::from("--swarm-default-advertise-addr=eth0")];
        let given: [&[OsString]; 1] = [&given];
        assert!(options(&swarm, &Config::read(&env, &given)).is_empty());
    }

    #[test]
    fn an_address_is_waited_for_until_it_comes_or_time_is_up() {
        let own = "127.0.0.1".parse().unwrap();
        assert_eq!(await_address(own, Duration::ZERO), Ok(()));
        // TEST-NET-2 of RFC 5737.
        let never = "198.51.100.77".parse().unwrap();
        let error = await_address(never, Duration::from_millis(50)).unwrap_err().to_string();
        assert!(error.contains("198.51.100.77") && error.contains("\nhint: "), "{error}");
        std::thread::scope(|scope| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
            let netns = fs::File::open("/proc/thread-self/ns/net").unwrap();
            let late = "192.0.2.10".parse().unwrap();
            scope.spawn(move || {
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                let mut rt = netlink::Rt::open().unwrap();
                let lo = rt.link_index("lo").unwrap();
                rt.link_up(lo).unwrap();
                rt.add_address(lo, late, 32).unwrap();
            });
            assert_eq!(await_address(late, Duration::from_secs(60)), Ok(()));
        });
    }
}
