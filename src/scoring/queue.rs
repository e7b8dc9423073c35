//! A bounded queue between two stages, bounded by number and by weight.
//!
//! The standard library's channel is bounded by number alone, and cannot hand over "all that is
//! there now", which is what lets a slow producer have its answers at once and a fast one full windows.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    max_items: usize,
    max_weight: usize,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    weight: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// Holds at most `max_items` and a total of `max_weight`, though always at least one item.
    pub fn new(max_items: usize, max_weight: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                weight: 0,
                closed: false,
            }),
            changed: Condvar::new(),
            max_items,
            max_weight,
        }
    }

    /// A panic elsewhere leaves the queue consistent: no invariant spans more than one statement under the lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room. False (and the item is dropped) when the queue is closed.
    pub fn push(&self, item: T, weight: usize) -> bool {
        let mut state = self.lock();
        while !state.closed
            && !state.items.is_empty()
            && (state.items.len() >= self.max_items || state.weight.saturating_add(weight) > self.max_weight)
        {
            state = self.wait(state);
        }
        if state.closed {
            return false;
        }
        state.items.push_back((item, weight));
        state.weight += weight;
        self.changed.notify_all();
        true
    }

    /// Waits for an item. None when the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        self.pop_many(1, usize::MAX).pop()
    }

    /// Waits for an item, then takes all that are there, up to `max_items` and `max_weight` but at
    /// least one. Empty when the queue is closed and empty.
    pub fn pop_many(&self, max_items: usize, max_weight: usize) -> Vec<T> {
        let mut state = self.lock();
        while state.items.is_empty() && !state.closed {
            state = self.wait(state);
        }
        let mut taken = Vec::with_capacity(state.items.len().min(max_items));
        let mut weight = 0usize;
        while let Some(&(_, next)) = state.items.front() {
            if !taken.is_empty() && (taken.len() >= max_items || weight.saturating_add(next) > max_weight) {
                break;
            }
            if let Some((item, _)) = state.items.pop_front() {
                taken.push(item);
            }
            weight += next;
            state.weight -= next;
        }
        self.changed.notify_all();
        taken
    }

    /// Whether all that came in is taken and nothing more will.
    pub fn has_ended(&self) -> bool {
        let state = self.lock();
        state.closed && state.items.is_empty()
    }

    /// Nothing more comes in; what is there can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Nothing more comes in or out.
    pub fn abort(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.items.clear();
        state.weight = 0;
        drop(state);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn takes_what_is_there_and_no_more_than_asked() {
        let queue = Queue::new(10, 1000);
        for i in 0..5 {
            assert!(queue.push(i, 10));
        }
        assert_eq!(queue.pop_many(2, 1000), [0, 1]);
        assert_eq!(queue.pop_many(10, 15), [2]);
        assert_eq!(queue.pop_many(10, 1), [3]);
        queue.close();
        assert!(!queue.has_ended());
        assert_eq!(queue.pop_many(10, 1000), [4]);
        assert!(queue.has_ended());
        assert!(queue.pop_many(10, 1000).is_empty());
        assert!(!queue.push(9, 1));
    }

    #[test]
    fn a_full_queue_holds_the_producer_back_until_there_is_room() {
        for (max_items, max_weight) in [(1, 1000), (100, 10)] {
            let queue = Arc::new(Queue::new(max_items, max_weight));
            assert!(queue.push(1, 10));
            let other = Arc::clone(&queue);
            let producer = std::thread::spawn(move || other.push(2, 10));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!producer.is_finished());
            assert_eq!(queue.pop(), Some(1));
            assert!(producer.join().unwrap());
            assert_eq!(queue.pop(), Some(2));
        }
    }

    #[test]
    fn an_item_heavier_than_the_bound_passes_alone() {
        let queue = Queue::new(10, 10);
        assert!(queue.push('a', 500));
        assert_eq!(queue.pop_many(10, 10), ['a']);
    }

    #[test]
    fn aborting_frees_both_ends() {
        let queue = Arc::new(Queue::new(1, 10));
        assert!(queue.push(1, 1));
        let other = Arc::clone(&queue);
        let producer = std::thread::spawn(move || other.push(2, 1));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!producer.is_finished());
        queue.abort();
        assert!(!producer.join().unwrap());
        assert_eq!(queue.pop(), None);
    }
}
