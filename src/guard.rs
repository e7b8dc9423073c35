//! Calls into libraries that are not written for hostile or damaged files. (tokenizers: an id of `u32::MAX` overflows inside it, and a
//! special token that its own table lacks is looked up all the same. redb: a page that another program has written over.) Their panics
//! become reasons here, and stay off stderr, where everything else is one clear line.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::words::on_one_line;

/// Of a reason, in characters.
const LONGEST: usize = 200;

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `call` returns, or the message of its panic as one short line.
///
/// The panic hook says nothing of this thread meanwhile; of other threads, and before and after, it is the one that was there. What
/// `call` was working on must not be used after a panic.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // While a thread ends its cells may be gone; then it is not in a call.
            if !IS_GUARDED.try_with(Cell::get).unwrap_or(false) {
                earlier(info);
            }
        }));
    });
    let outer = IS_GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(outer);
    result.map_err(|payload| on_one_line(&message(payload.as_ref()), LONGEST))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it panicked without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_reason_on_one_line() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| -> u8 { panic!("no entry") }), Err("no entry".to_owned()));
        let key = "a\nb".to_owned();
        assert_eq!(guarded(|| -> u8 { panic!("key {key}") }), Err("key a\\nb".to_owned()));
        let long = guarded(|| -> u8 { panic!("{}", "x".repeat(5000)) }).unwrap_err();
        assert_eq!(long.chars().count(), 201);
        let odd = guarded(|| -> u8 { panic::panic_any(3) }).unwrap_err();
        assert!(odd.contains("without a message"), "{odd}");
    }

    #[test]
    fn a_call_within_a_call_leaves_the_outer_one_guarded() {
        let inner = guarded(|| {
            let inner = guarded(|| -> u8 { panic!("inner") });
            (inner, IS_GUARDED.get())
        });
        assert_eq!(inner, Ok((Err("inner".to_owned()), true)));
        assert!(!IS_GUARDED.get());
    }
}
