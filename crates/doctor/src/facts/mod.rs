//! What is the case on this host, as plain data: the doctor judges [`Facts`] and looks at nothing else.

mod account;
mod choices;
mod container;
mod daemon;
mod egress;
mod files;
mod host;
mod ids;
mod loopback;
mod networks;
mod sockets;
mod storage;
mod swarm;
mod tools;
mod variables;
mod ways;

pub use account::{Account, Closed, Home, RuntimeState, WhyClosed};
pub use choices::Choices;
pub use container::Container;
pub use daemon::Daemon;
pub use egress::PolicyFile;
pub use files::Found;
pub use host::{Cgroup, Device, Host};
pub use ids::Ids;
pub use loopback::{AllowedPorts, HostLoopback};
pub use networks::{DEFAULT_SWARM_POOL, DockerNetwork, DockerNetworks};
pub use storage::{LITTLE_SPACE, Owner, Room, Storage};
pub use swarm::{Node, Taken};
pub use tools::{Net, Tools, Unusable};
pub use variables::UserSetting;
use variables::UserSettings;
pub use ways::{Proxy, Ways};

use std::collections::BTreeMap;

use drivers::NetworkDriver;

use crate::distro::Distro;
use crate::place::World;
use crate::probe::{Outcome, Probe, Prober, Setting};

#[derive(Debug, Clone)]
pub struct Facts {
    pub distro: Distro,
    pub account: Account,
    pub ids: Ids,
    pub tools: Tools,
    pub host: Host,
    pub cgroup: Cgroup,
    pub storage: Storage,
    pub daemon: Daemon,
    pub files: Vec<Found>,
    pub ways: Ways,
    pub networks: DockerNetworks,
    /// The daemon is to be a node of a swarm.
    pub swarm: Option<Node>,
    pub loopback: HostLoopback,
    /// The files that say what containers may reach, in the order in which they judge.
    pub egress: Vec<PolicyFile>,
    outcomes: BTreeMap<Probe, Outcome>,
}

impl Facts {
    pub fn gather(world: &World, prober: &dyn Prober) -> Self {
        let os_release = world.text("etc/os-release").or_else(|| world.text("usr/lib/os-release"));
        let settings = UserSettings::gather(world);
        let tools = Tools::gather(world, &settings, prober);
        let mut facts = Self {
            ways: Ways::gather(world, &settings, tools.dockerd_version),
            networks: DockerNetworks::gather(world, prober),
            loopback: HostLoopback::gather(&settings),
            egress: egress::gather(world, &settings),
            swarm: Node::gather(world, &settings, tools.dockerd_version, prober),
            distro: Distro::parse(&os_release.unwrap_or_default()),
            account: Account::gather(world),
            ids: Ids::gather(world),
            tools,
            host: Host::gather(world, &settings),
            cgroup: Cgroup::gather(world),
            storage: Storage::gather(world),
            daemon: Daemon::gather(world),
            files: Vec::new(),
            outcomes: BTreeMap::new(),
        };
        facts.files = files::gather(world, &facts.account, &facts.tools);
        // Root is refused anyway, and rootlesskit as root proves nothing.
        if world.uid != 0 {
            facts.try_out(prober);
        }
        facts
    }

    pub fn outcome(&self, probe: Probe) -> &Outcome {
        self.outcomes.get(&probe).unwrap_or(&Outcome::Unknown)
    }

    pub fn works(&self, probe: Probe) -> bool {
        self.outcome(probe).works()
    }

    fn try_out(&mut self, prober: &dyn Prober) {
        let mut setting = Setting {
            rootlesskit: self.tools.rootlesskit.clone(),
            net: None,
            iptables: self.tools.iptables.clone(),
            data_parent: self.storage.existing.clone(),
            runtime_dir: self.account.runtime.usable().map(Into::into),
            ip: self.swarm.as_ref().and_then(|node| node.ip.clone()),
        };
        if self.account.runtime.usable().is_some() {
            self.take(prober, Probe::UserManager, &setting);
        }
        // Everything else happens in namespaces.
        let namespaces = self.take(prober, Probe::Namespaces, &setting);
        // Without namespaces nobody knows, and it is what the launcher will try first.
        if self.tools.tries_gateway && (!namespaces || self.take(prober, Probe::Gateway, &setting))
        {
            self.tools.net = Net::Chosen(NetworkDriver::Gateway);
        }
        if !namespaces {
            return;
        }
        setting.net = self.tools.net.name().map(str::to_owned);
        if self.works(Probe::Gateway) {
            self.outcomes.insert(Probe::Network, self.outcome(Probe::Gateway).clone());
        } else {
            self.take(prober, Probe::Network, &setting);
        }
        for probe in [Probe::Nat, Probe::Overlay, Probe::Proc] {
            self.take(prober, probe, &setting);
        }
        if setting.ip.is_some() {
            self.take(prober, Probe::Vxlan, &setting);
        }
    }

    fn take(&mut self, prober: &dyn Prober, probe: Probe, setting: &Setting) -> bool {
        let outcome = prober.probe(probe, setting);
        let works = outcome.works();
        self.outcomes.insert(probe, outcome);
        works
    }
}
