//! What is shown while the gateway has not accepted a policy yet, or refuses it.

use super::*;

#[tokio::test]
async fn a_policy_that_the_gateway_refuses_is_not_said_to_be_in_force() {
    let files = Files::new();
    files.write("one", &rule("a"));
    files.write("two", &rule("b"));
    let (mut follower, gateway) = files.follower(&["one", "two"]);
    follower.retry_delay = PATIENCE;
    let status = follower.status();
    let error = |file: usize| status.borrow().files[file].error.clone();
    let shown = || status.borrow().files[0].rules[0].rule.name.clone();
    let mut follow = std::pin::pin!(follower.follow());
    for (next, new, why) in [
        (Next::TooLarge, "c", "it is too large"),
        (Next::Refused, "d", "the gateway refused it: no room"),
    ] {
        let told = gateway.policies.borrow().len();
        gateway.next.replace(next);
        files.replace("one", &rule(new));
        let expected = Some(format!("{REFUSED}: {why}"));
        until(follow.as_mut(), || error(0) == expected && error(1) == expected).await;
        assert_eq!(
            (gateway.rules(), shown()),
            (vec![vec!["a".into()], vec!["b".into()]], "a".into())
        );
        // The gateway, and its successor, have the one before again.
        let again = usize::from(matches!(next, Next::Refused));
        assert_eq!(gateway.policies.borrow().len(), told + again);
    }
    // The one before is what the files say again.
    gateway.next.replace(Next::Accepted);
    files.replace("one", &rule("a"));
    until(follow.as_mut(), || error(0).is_none() && error(1).is_none()).await;
    // A successor starts with it.
    gateway.next.replace(Next::Ended);
    files.replace("one", &rule("e"));
    until(follow.as_mut(), || shown() == "e").await;
    assert_eq!(error(0), None);
}

#[tokio::test]
async fn a_policy_that_the_gateway_refuses_is_offered_again() {
    let files = Files::new();
    files.write("one", &rule("a"));
    let (mut follower, gateway) = files.follower(&["one"]);
    follower.retry_delay = Duration::from_millis(1);
    let status = follower.status();
    let error = || status.borrow().files[0].error.clone();
    let mut follow = std::pin::pin!(follower.follow());
    gateway.next.replace(Next::Refused);
    files.replace("one", &rule("b"));
    until(follow.as_mut(), || error().is_some()).await;
    assert_eq!(gateway.rules(), [["a"]]);
    // Its successor works.
    gateway.next.replace(Next::Accepted);
    until(follow.as_mut(), || gateway.rules() == [["b"]] && error().is_none()).await;
}

#[tokio::test]
async fn a_policy_is_said_to_be_in_force_when_the_gateway_has_accepted_it() {
    let files = Files::new();
    files.write("one", &rule("a"));
    let (mut follower, gateway) = files.follower(&["one"]);
    let status = follower.status();
    let shown = || status.borrow().files[0].rules[0].rule.name.clone();
    gateway.next.replace(Next::Open);
    let mut follow = std::pin::pin!(follower.follow());
    files.replace("one", &rule("b"));
    until(follow.as_mut(), || gateway.open.borrow().is_some()).await;
    assert_eq!(shown(), "a");
    let reply = gateway.open.take().unwrap();
    reply.send(Ok(())).unwrap();
    until(follow.as_mut(), || shown() == "b").await;
    assert_eq!(status.borrow().files[0].error, None);
}
