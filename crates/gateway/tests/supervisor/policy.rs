//! Changes of the egress policy.

use super::*;

fn policy(file: &str) -> egress::Policies {
    let policies = vec![egress::Policy { file: file.to_owned(), ..egress::Policy::default() }];
    egress::Policies { policies, ..egress::Policies::default() }
}

/// Sets a policy, and waits for what becomes of it.
fn set(gateway: &mut Supervisor, file: &str) -> anyhow::Result<()> {
    let (done, is_done) = channel();
    gateway.set_policy(policy(file), move |result| done.send(result).unwrap())?;
    is_done.recv_timeout(PATIENCE).unwrap()
}

/// The policy that a new gateway is told.
fn told(gateway: &mut Supervisor) -> egress::Policies {
    let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(handle_request(r)));
    configure(gateway).unwrap();
    let (request, _) = next(&seen);
    let Request::Configure { policy, .. } = request else { panic!("{request:?}") };
    policy
}

#[test]
fn a_new_policy_is_told_and_known_to_gateways_that_start_later() {
    let (mut gateway, _) = handle(plan(false));
    set(&mut gateway, "before").unwrap();
    let (seen, _thread) = serve(gateway.renew().unwrap(), |r| Some(handle_request(r)));
    configure(&mut gateway).unwrap();
    let (request, _) = next(&seen);
    let Request::Configure { policy: told_first, .. } = request else { panic!("{request:?}") };
    assert_eq!(told_first, policy("before"));
    set(&mut gateway, "after").unwrap();
    assert_eq!(next(&seen).0, Request::Policy(Box::new(policy("after"))));
    // One that is too large changes nothing.
    let too_large = error(set(&mut gateway, &"a".repeat(gateway::control::MAX)));
    assert!(too_large.contains("too large"), "{too_large}");
    assert_eq!(told(&mut gateway), policy("after"));
}

#[test]
fn whoever_sets_a_policy_learns_that_the_gateway_refuses_it() {
    let refuses = |request: &Request| match request {
        Request::Policy(new) if **new == policy("bad") => Some(Reply::Failed("no room".into())),
        other => Some(handle_request(other)),
    };
    let (mut gateway, _seen, _thread) = up(refuses);
    set(&mut gateway, "good").unwrap();
    let refused = error(set(&mut gateway, "bad"));
    assert!(refused.contains("the gateway refused it: no room"), "{refused}");
    assert!(gateway.is_up());
    set(&mut gateway, "good").unwrap();
    assert_eq!(told(&mut gateway), policy("good"));
}

#[test]
fn a_gateway_that_ends_before_it_has_taken_a_policy_leaves_it_to_the_next_one() {
    let dies = |request: &Request| match request {
        Request::Policy(_) => None,
        other => Some(handle_request(other)),
    };
    let (mut gateway, _seen, _thread) = up(dies);
    set(&mut gateway, "new").unwrap();
    assert_eq!(told(&mut gateway), policy("new"));
}
