//! The record of requests, as configured.

use super::world::{World, spoiled_in};

#[track_caller]
fn spoiled(from: &str, to: &str, place_and_code: &str, message: &str, help: &str) {
    spoiled_in("doorward.yaml", (from, to), place_and_code, message, help);
}

#[test]
fn an_audit_queue_that_refuses_holds_every_request_under_way() {
    let help = "a request under way holds a place in the queue, a finished one until it is written, and with \
                `mode: strict` each a second one: give `audit.queue` four times `limits.concurrent_requests`";
    spoiled(
        "when_full: refuse",
        "queue: 10000",
        "65:10 audit_queue",
        "an audit queue of 10000 is too small for 10000 requests at once",
        help,
    );
    spoiled(
        "header_bytes: 64KiB",
        "concurrent_requests: 20000",
        "22:24 audit_queue",
        "an audit queue of 20000 is too small for 20000 requests at once",
        help,
    );
    let counting = "when_full: count\n  queue: 1";
    assert!(World::with("doorward.yaml", "when_full: refuse", counting).load().is_ok());
    spoiled(
        "when_full: refuse",
        "mode: strict\n  queue: 39999",
        "66:10 audit_queue",
        "an audit queue of 39999 is too small for 10000 requests at once",
        help,
    );
    assert!(World::with("doorward.yaml", "when_full: refuse", "mode: strict").load().is_ok());
}

#[test]
fn a_strict_audit_loses_nothing_that_it_could_count() {
    spoiled(
        "when_full: refuse",
        "when_full: count\n  mode: strict",
        "66:9 audit_mode",
        "a strict audit cannot count what it loses",
        "remove `when_full: count`, which lets requests pass without a record",
    );
}
