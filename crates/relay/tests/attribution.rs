//! For which container a connection or flow counts that may go on for another one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay::{Attribution, Counted, Traffic};

fn numbers(traffic: &Traffic) -> [u64; 5] {
    let Traffic { active, opened, failed, up, down, .. } = traffic;
    [active, opened, failed, up, down].map(|number| number.load(Ordering::Relaxed))
}

#[test]
fn what_goes_on_for_another_container_leaves_the_first_one_what_it_had() {
    let [port, first, second] = [(); 3].map(|()| Arc::new(Traffic::default()));
    let attribution = Attribution::default();
    let counted = Counted::open(Arc::clone(&port)).attributed(attribution.clone());
    attribution.to(Arc::clone(&first));
    counted.up(1);
    attribution.to(Arc::clone(&second));
    assert_eq!((numbers(&first), numbers(&second)), ([1, 1, 0, 1, 0], [0; 5]), "nobody asked");

    // It may be the same one.
    let again = counted.attribute_again().unwrap();
    counted.up(10);
    assert_eq!(numbers(&first), [1, 1, 0, 1, 0]);
    again.to(Arc::clone(&first));
    assert_eq!(numbers(&first), [1, 1, 0, 11, 0]);
    // Or nobody knows.
    let again = counted.attribute_again().unwrap();
    counted.up(100);
    assert!(again.stay());
    assert_eq!(numbers(&first), [1, 1, 0, 111, 0]);

    let again = counted.attribute_again().unwrap();
    counted.down(1000);
    again.to(Arc::clone(&second));
    assert_eq!(numbers(&first), [0, 1, 0, 111, 0]);
    assert_eq!(numbers(&second), [1, 1, 0, 0, 1000]);
    // It ends before the next answer.
    let again = counted.attribute_again().unwrap();
    drop(counted);
    again.to(Arc::clone(&first));
    assert_eq!((numbers(&first), numbers(&second)), ([0, 2, 0, 111, 0], [0, 1, 0, 0, 1000]));
    assert_eq!(numbers(&port), [0, 1, 0, 111, 1000]);
}

#[test]
fn a_flow_that_never_had_a_container_has_none_to_stay_with() {
    let attribution = Attribution::default();
    let _counted = Counted::open(Arc::default()).attributed(attribution.clone());
    assert!(!attribution.stay());
    let container = Arc::new(Traffic::default());
    attribution.to(Arc::clone(&container));
    assert_eq!(numbers(&container), [1, 1, 0, 0, 0]);
}
