//! Limits of containers on a real cgroup v2, which takes a kernel of one's own: what the setup tool predicts is what
//! happens, with the controllers that systemd gives to users by itself and with those of the documented drop-in.

use serde_json::Value;
use tests::docker::MAKE_IMAGE;
use tests::limits::{Fate, Tried, fates};
use tests::{Context, Machine, Result, Suite, Vm, ensure};

const TOOL: &str = "dockerd-rootless-setuptool.sh";

fn as_predicted(tried: Vec<Tried>) -> Result<Vec<Fate>> {
    let fate = |tried: Tried| {
        ensure!(tried.surprise.is_none(), "{tried:#?}");
        Ok(tried.fate)
    };
    tried.into_iter().map(fate).collect()
}

#[test]
fn limits_do_what_the_setup_tool_predicts() -> Result<()> {
    use Fate::{Limited, Refused, Unlimited};
    let mut vm = Vm::boot(&Machine::of(Suite::Sid))?;
    // By itself systemd gives users cpu, memory and pids. A weight for the user's slice gives io to the slice alone.
    vm.root("systemctl set-property --runtime user-1001.slice IOWeight=50")?.ok()?;
    vm.user(&format!("{TOOL} install"))?.ok()?;
    vm.user(MAKE_IMAGE)?.ok()?;
    let (without, said) = fates(&mut vm)?;
    assert_eq!(as_predicted(without)?, [Limited, Unlimited, Refused, Limited, Limited]);

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
    assert_eq!(
        (as_predicted(with)?, &said["admin_script"]),
        (vec![Limited; 5], &Value::Null),
        "{said:#}"
    );

    vm.user("docker run -d --name web --stop-signal KILL -p 8080:80 bb httpd -f -h /www")?.ok()?;
    let get = "curl -sS -m 10 --retry 30 --retry-delay 1 --retry-all-errors http://127.0.0.1:8080/";
    assert_eq!(vm.user(get)?.ok()?, "hello-from-container\n");
    Ok(())
}
