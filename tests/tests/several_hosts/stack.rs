//! The stack of docs/several-hosts.md, as it stands there.

use std::fs;

use tests::{Context as _, PATIENCE, Result, Suite, ensure, paths, wait};

use crate::swarm::{Hosts, Node, stop};

/// The file that the page shows.
fn stack() -> Result<String> {
    let page = fs::read_to_string(paths::docs().join("several-hosts.md"))?;
    let block = page.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```"));
    Ok(block.context("the page has no stack")?.0.to_owned())
}

/// Makes stand-ins for the images of the stack: there is no registry.
fn make_images(node: &Node<'_>) -> Result<()> {
    for (image, command) in [
        ("nginx:alpine", r#"["httpd","-f","-p","80","-h","/www"]"#),
        ("redis:alpine", r#"["nc","-ll","-p","6379","-e","echo","PONG"]"#),
    ] {
        let made = format!(
            "container create --name stand-in bb && docker commit -c 'CMD {command}' stand-in {image} &&
             docker rm stand-in"
        );
        node.run(&made)?;
    }
    Ok(())
}

#[test]
fn the_stack_of_the_page_runs_as_it_is() -> Result<()> {
    let hosts = Hosts::boot(&[Suite::Sid, Suite::Sid, Suite::Sid])?;
    let nodes = hosts.swarm(1, 1)?;
    nodes.iter().try_for_each(make_images)?;
    nodes[0].b.write("/tmp/stack.yaml", &stack()?)?;
    nodes[0].run("stack deploy -c /tmp/stack.yaml demo")?;
    for node in &nodes {
        let get = format!("curl -sS -m 5 http://{}:8080/", node.address);
        wait::until_true("the web server of the node answers", PATIENCE, || {
            Ok(hosts.boxes[2].root(&get).run()?.stdout == "hello-from-container\n")
        })?;
        // Each of them reaches the one cache, on whichever node it is.
        let service = "label=com.docker.swarm.service.name=demo_web";
        let web = node.run(&format!("ps -q --filter status=running --filter {service}"))?;
        for name in ["cache", "tasks.cache"] {
            wait::until_true("the web server reaches the cache", PATIENCE, || {
                let said = node.exec(&web, &format!("sh -c 'nc -w 5 {name} 6379 </dev/null'"));
                Ok(said.is_ok_and(|said| said == "PONG"))
            })?;
        }
    }
    let said = nodes[1].run("run --rm --network demo_backend bb nslookup cache")?;
    ensure!(said.contains("Name:"), "{said}");
    nodes[0].run("stack rm demo")?;
    stop(nodes)
}
