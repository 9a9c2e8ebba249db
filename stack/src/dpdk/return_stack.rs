//! An intrusive stack that many threads push chains onto and one takes whole.
//!
//! Application threads push the buffers they have read; the lcore takes all of them once per poll.
//! It is never full, allocates nothing, and a producer that is preempted anywhere in a push holds up
//! nobody. It never pops a single node, which is why it has no ABA problem: a head that was taken,
//! reused and pushed again between a producer's read and its exchange is a right link all the same.

#[cfg(loom)]
use loom::sync::atomic::{AtomicPtr, Ordering};
use std::fmt;
use std::ptr::{self, NonNull};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicPtr, Ordering};

/// Something with room for a link.
///
/// # Safety
/// A link that was set must be read back unchanged until it is set again, and both accesses must be
/// confined to the node, so that whoever owns the node may make them.
pub(crate) unsafe trait Node {
    /// The link.
    ///
    /// # Safety
    /// The caller owns the node, and the link has been set.
    unsafe fn next(node: NonNull<Self>) -> *mut Self;

    /// Sets the link.
    ///
    /// # Safety
    /// The caller owns the node.
    unsafe fn set_next(node: NonNull<Self>, next: *mut Self);
}

/// The stack. It owns the nodes that are on it but does not know how to free them.
pub(crate) struct ReturnStack<N> {
    head: AtomicPtr<N>,
}

impl<N> Default for ReturnStack<N> {
    fn default() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl<N> fmt::Debug for ReturnStack<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReturnStack").finish_non_exhaustive()
    }
}

impl<N: Node> ReturnStack<N> {
    /// Pushes the chain `first` … `last`, as linked, with one exchange unless others interfere.
    ///
    /// # Safety
    /// The caller owns every node of the chain and gives them away; following the links from `first`
    /// leads to `last`. Nodes may be sent between threads.
    pub(crate) unsafe fn push_chain(&self, first: NonNull<N>, last: NonNull<N>) {
        // Release pairs with the Acquire of `take_all`: links and contents of the nodes are written
        // before whoever takes them reads them.
        // SAFETY: forwarded.
        unsafe { self.publish::<true>(first, last, Ordering::Release) }
    }

    /// Whether nothing is on it, as far as a look tells.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a push that is missed now is found at the next look.
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes everything, newest chain first, as a list that ends with a null link. The caller owns
    /// the nodes from then on.
    pub(crate) fn take_all(&self) -> Option<NonNull<N>> {
        // A look first: an empty stack is left alone, and its cache line shared.
        if self.is_empty() {
            return None;
        }
        // Acquire pairs with the Release of every `push_chain` on the list, the last directly, the
        // earlier ones because each later exchange continues their release sequence.
        self.take(Ordering::Acquire)
    }

    /// The push, with what the model checker's mutants change as parameters.
    ///
    /// # Safety
    /// As of [`Self::push_chain`].
    unsafe fn publish<const RELINK: bool>(
        &self,
        first: NonNull<N>,
        last: NonNull<N>,
        order: Ordering,
    ) {
        // Relaxed: the value is only compared and linked to, never followed.
        let mut head = self.head.load(Ordering::Relaxed);
        // SAFETY: the chain is ours until the exchange succeeds.
        unsafe { N::set_next(last, head) };
        while let Err(now) =
            self.head.compare_exchange_weak(head, first.as_ptr(), order, Ordering::Relaxed)
        {
            head = now;
            if RELINK {
                // SAFETY: as above; the exchange failed.
                unsafe { N::set_next(last, head) };
            }
        }
    }

    fn take(&self, order: Ordering) -> Option<NonNull<N>> {
        NonNull::new(self.head.swap(ptr::null_mut(), order))
    }
}

/// Nodes for the tests: a link, and a value that is written before the push.
#[cfg(test)]
mod test_node {
    #[cfg(loom)]
    use loom::cell::UnsafeCell;
    use std::ptr::{self, NonNull};

    use super::Node;

    #[cfg(not(loom))]
    #[derive(Debug)]
    struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    #[cfg(not(loom))]
    impl<T> UnsafeCell<T> {
        fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }

    #[derive(Debug)]
    pub(super) struct TestNode {
        next: UnsafeCell<*mut TestNode>,
        value: UnsafeCell<u32>,
    }

    // SAFETY: the link is a field that nothing else writes.
    unsafe impl Node for TestNode {
        unsafe fn next(node: NonNull<Self>) -> *mut Self {
            // SAFETY: the caller owns the node.
            unsafe { node.as_ref().next.with(|next| *next) }
        }

        unsafe fn set_next(node: NonNull<Self>, next: *mut Self) {
            // SAFETY: the caller owns the node.
            unsafe { node.as_ref().next.with_mut(|link| *link = next) }
        }
    }

    /// A chain holding `values`, its first and last node.
    pub(super) fn chain(values: &[u32]) -> (NonNull<TestNode>, NonNull<TestNode>) {
        let nodes: Vec<_> = values
            .iter()
            .map(|value| {
                let node = TestNode {
                    next: UnsafeCell::new(ptr::null_mut()),
                    value: UnsafeCell::new(*value),
                };
                NonNull::from(Box::leak(Box::new(node)))
            })
            .collect();
        for pair in nodes.windows(2) {
            // SAFETY: just made.
            unsafe { TestNode::set_next(pair[0], pair[1].as_ptr()) };
        }
        (nodes[0], nodes[nodes.len() - 1])
    }

    /// Frees a list that was taken and returns its values, first to last.
    pub(super) fn consume(mut list: Option<NonNull<TestNode>>) -> Vec<u32> {
        let mut values = Vec::new();
        while let Some(node) = list {
            // SAFETY: whoever took the list owns its nodes, which came from a Box.
            unsafe {
                list = NonNull::new(TestNode::next(node));
                values.push(node.as_ref().value.with(|value| *value));
                drop(Box::from_raw(node.as_ptr()));
            }
        }
        values
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::test_node::{chain, consume};
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn an_empty_stack_gives_nothing() {
        let stack = ReturnStack::<super::test_node::TestNode>::default();
        assert!(stack.take_all().is_none());
    }

    #[test]
    fn chains_come_back_whole_and_the_newest_first() {
        let stack = ReturnStack::default();
        for values in [&[1, 2, 3][..], &[4], &[5, 6]] {
            let (first, last) = chain(values);
            // SAFETY: a fresh chain.
            unsafe { stack.push_chain(first, last) };
        }
        assert_eq!(consume(stack.take_all()), [5, 6, 4, 1, 2, 3]);
        assert!(stack.take_all().is_none());
    }

    #[test]
    fn nothing_is_lost_or_doubled_among_four_threads() {
        const EACH: u32 = 20_000;
        let stack = ReturnStack::default();
        let done = AtomicBool::new(false);
        let mut seen = std::thread::scope(|scope| {
            let stack = &stack;
            let taker = scope.spawn(|| {
                let mut seen = Vec::new();
                loop {
                    let last_round = done.load(Ordering::Acquire);
                    seen.extend(consume(stack.take_all()));
                    if last_round {
                        return seen;
                    }
                }
            });
            let givers: Vec<_> = (0..3)
                .map(|giver| {
                    scope.spawn(move || {
                        for n in (0..EACH).step_by(2) {
                            let (first, last) = chain(&[giver * EACH + n, giver * EACH + n + 1]);
                            // SAFETY: a fresh chain.
                            unsafe { stack.push_chain(first, last) };
                        }
                    })
                })
                .collect();
            givers.into_iter().for_each(|giver| giver.join().unwrap());
            done.store(true, Ordering::Release);
            taker.join().unwrap()
        });
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..3 * EACH));
    }
}

/// Every interleaving of two producers and the lcore, and mutants that must be caught.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::test_node::{TestNode, chain, consume};
    use super::*;
    use loom::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    type Stack = ReturnStack<TestNode>;
    type Chain = (NonNull<TestNode>, NonNull<TestNode>);

    /// Executions in which something was taken while threads still gave.
    static MET: AtomicUsize = AtomicUsize::new(0);

    fn model(push: fn(&Stack, Chain), take: fn(&Stack) -> Option<NonNull<TestNode>>) {
        loom::model(move || {
            let stack = Arc::new(Stack::default());
            let givers = [&[1, 2][..], &[3]].map(|values| {
                let stack = stack.clone();
                loom::thread::spawn(move || push(&stack, chain(values)))
            });
            // A thread of its own: loom does not go back to before a look by the first thread.
            let lcore = {
                let stack = stack.clone();
                loom::thread::spawn(move || consume(take(&stack)))
            };
            let mut seen = lcore.join().unwrap();
            if !seen.is_empty() {
                MET.fetch_add(1, Ordering::Relaxed);
            }
            for giver in givers {
                giver.join().unwrap();
            }
            seen.extend(consume(take(&stack)));
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 3]);
        });
    }

    fn push(stack: &Stack, (first, last): Chain) {
        // SAFETY: a fresh chain.
        unsafe { stack.push_chain(first, last) }
    }

    fn mutant<const RELINK: bool>(stack: &Stack, (first, last): Chain, order: Ordering) {
        // SAFETY: a fresh chain.
        unsafe { stack.publish::<RELINK>(first, last, order) }
    }

    #[test]
    fn loom_returns_reach_the_lcore_once_each() {
        model(push, Stack::take_all);
        assert_ne!(MET.load(Ordering::Relaxed), 0, "the lcore never met a thread that gave");
    }

    #[test]
    #[should_panic]
    fn loom_mutant_push_without_release_is_caught() {
        model(|stack, chain| mutant::<true>(stack, chain, Ordering::Relaxed), Stack::take_all);
    }

    #[test]
    #[should_panic]
    fn loom_mutant_take_without_acquire_is_caught() {
        model(push, |stack| stack.take(Ordering::Relaxed));
    }

    #[test]
    #[should_panic]
    fn loom_mutant_push_that_does_not_relink_is_caught() {
        model(|stack, chain| mutant::<false>(stack, chain, Ordering::Release), Stack::take_all);
    }
}
