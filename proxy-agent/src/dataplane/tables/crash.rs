//! Where tests let the agent die: before any one of its writes to the tables; and where they have the kernel refuse one.
//!
//! Every store into a mapped table and every insert and delete of an element calls [`point`] first (`mapped`,
//! `elements`). Unit tests unwind there (`properties/crashes`). A debug build of the agent kills itself at the write that
//! [`VARIABLE`] names, counted from its first change after the start (the scenario test `crashes`), or from the conversion
//! of another version's tables (`other_layouts`); `switch-5` counts from the moment when other tables are filled and are about to
//! be used. There each pin and each link counts as a write, too. In a release build all functions are empty.

/// The number of the write before which a debug build dies, from 1.
#[cfg(debug_assertions)]
const VARIABLE: &str = "SIDESTEP_DIE_BEFORE_WRITE";

#[cfg(debug_assertions)]
thread_local! {
    /// How many writes of this thread are left; 0 for any number.
    static LEFT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A write comes next.
#[cfg(debug_assertions)]
pub(crate) fn point() {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    if left == 1 {
        die();
    }
}

/// A write comes next.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) const fn point() {}

/// Whether the kernel has no memory for an element: in tests that say so.
#[cfg(test)]
pub(super) fn no_memory() -> bool {
    NO_MEMORY.get()
}

/// Whether the kernel has no memory for an element.
#[cfg(not(test))]
#[inline(always)]
pub(super) const fn no_memory() -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static NO_MEMORY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Lets the kernel have no memory for elements that the present thread enters while it does this.
#[cfg(test)]
pub(super) fn without_memory<T>(act: impl FnOnce() -> T) -> T {
    NO_MEMORY.set(true);
    let done = act();
    NO_MEMORY.set(false);
    done
}

/// A change of a running agent comes next: counts from the first one on.
#[cfg(debug_assertions)]
pub(crate) fn a_change_begins() {
    static FIRST: std::sync::Once = std::sync::Once::new();
    FIRST.call_once(|| {
        let number = std::env::var(VARIABLE).ok().and_then(|number| number.parse().ok());
        LEFT.set(number.unwrap_or_else(|| LEFT.get()));
    });
}

/// A change of a running agent comes next.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) const fn a_change_begins() {}

/// Other tables are filled, and programs are about to use them.
#[cfg(debug_assertions)]
pub(crate) fn a_switch_begins() {
    let asked = std::env::var(VARIABLE).ok();
    let number = asked.and_then(|asked| asked.strip_prefix("switch-")?.parse().ok());
    LEFT.set(number.unwrap_or_else(|| LEFT.get()));
}

/// Other tables are filled, and programs are about to use them.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) const fn a_switch_begins() {}

/// As `kill -9` does it.
#[cfg(all(debug_assertions, not(test)))]
fn die() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
}

#[cfg(test)]
fn die() {
    // Not a panic, which would be printed.
    std::panic::resume_unwind(Box::new(Died));
}

/// What a crash in a test unwinds with.
#[cfg(test)]
#[derive(Debug)]
struct Died;

/// Lets the present thread die before its write with this number, from 1, while it does this; `None` if it did.
#[cfg(test)]
pub(super) fn before_write<T>(number: u64, act: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(number);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    LEFT.set(0);
    match done {
        Ok(value) => Some(value),
        Err(cause) if cause.is::<Died>() => None,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}
