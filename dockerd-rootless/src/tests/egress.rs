//! Files that say what containers may reach.

use std::fs;

use super::*;

const POLICY: &str = "EGRESS_POLICY";

/// A root directory with the administrator's file, and what comes of these variables on it.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let root = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(root.0.path().join("etc/docker-rootless")).unwrap();
        root
    }

    fn with_file() -> Self {
        let root = Self::new();
        fs::write(root.file(), "").unwrap();
        root
    }

    fn file(&self) -> String {
        self.0.path().join("etc/docker-rootless/egress.toml").display().to_string()
    }

    fn plan(&self, host: &Fake, vars: &[(&str, &str)]) -> Result<Plan, Failure> {
        let names: Vec<_> = vars.iter().map(|(name, _)| format!("{PREFIX}{name}")).collect();
        let env = names.iter().zip(vars).map(|(name, (_, value))| (name.as_str(), *value));
        plan(host, vars, &[])?.with_egress_policy(self.0.path(), &env.collect())
    }

    fn arguments(&self, vars: &[(&str, &str)]) -> Vec<String> {
        let args = self.plan(&with_gateway(NEW), vars).unwrap().arguments(Path::new("/T"), &[]);
        let args = args.iter().filter_map(|arg| arg.to_str()?.strip_prefix("--egress-policy="));
        args.map(str::to_owned).collect()
    }
}

#[test]
fn the_administrators_file_goes_before_the_users() {
    let root = Root::with_file();
    assert_eq!(root.arguments(&[]), [root.file()]);
    assert_eq!(root.arguments(&[(POLICY, "/u.toml")]), [root.file(), "/u.toml".to_owned()]);
    assert_eq!(root.arguments(&[(POLICY, "")]), [root.file()]);
    assert_eq!(root.arguments(&[("NET", "gvisor-tap-vsock")]), [root.file()]);
    assert_eq!(Root::new().arguments(&[]), [""; 0]);
    let flags = [(POLICY, "/u.toml"), ("FLAGS", "--egress-policy=/f.toml")];
    let shown = root.plan(&with_gateway(NEW), &flags).unwrap().to_string();
    assert!(shown.ends_with(&format!(" egress-policy={},/u.toml,/f.toml", root.file())), "{shown}");
}

#[test]
fn nothing_starts_with_a_driver_that_cannot_enforce_a_file() {
    let (root, none) = (Root::with_file(), Root::new());
    let away = format!("move {} away", root.file());
    let variable = |name: &str| format!("remove {PREFIX}{name} from the daemon's settings");
    for (root, host, vars, net, end) in [
        (&root, with_gateway(NEW), &[("NET", "slirp4netns")][..], "slirp4netns", away.clone()),
        (&root, with_gateway(NEW), &[("FLAGS", "--net=pasta")], "pasta", away.clone()),
        // Chosen by the launcher.
        (&root, machine(NEW), &[], "slirp4netns", away.clone()),
        (&none, machine(NEW), &[(POLICY, "/u.toml")], "slirp4netns", variable(POLICY)),
        (
            &root,
            machine(NEW),
            &[(POLICY, "/u.toml")],
            "slirp4netns",
            format!("{away} and {}", variable(POLICY)),
        ),
    ] {
        let error = root.plan(&host, vars).map(drop).unwrap_err().to_string();
        assert!(
            error.contains(&format!("the network driver {net} cannot enforce the egress policy ")),
            "{error}"
        );
        assert!(error.ends_with(&format!(", or {end}")), "{error}");
        assert_eq!(error.matches("\nhint: ").count(), 1, "{error}");
    }
    assert!(none.plan(&machine(NEW), &[]).is_ok());
}
