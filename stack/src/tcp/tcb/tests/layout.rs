//! The size of a connection.

use std::mem::{offset_of, size_of};

use crate::buf::HeapBuf;
use crate::tcp::tcb::Tcb;

#[test]
fn the_in_order_path_is_two_cache_lines_and_the_whole_a_few() {
    println!("{} receive@{} ack@{} ts@{} ofo@{} window@{}", size_of::<Tcb<HeapBuf>>(), offset_of!(Tcb<HeapBuf>, receive), offset_of!(Tcb<HeapBuf>, ack), offset_of!(Tcb<HeapBuf>, ts), offset_of!(Tcb<HeapBuf>, ofo), offset_of!(Tcb<HeapBuf>, window));
    println!("{:?}", (size_of::<crate::tcp::tcb::close::Closing>(), size_of::<crate::tcp::sack::SackList>(), size_of::<crate::tcp::ratelimit::ReplyStamp>(), size_of::<crate::tcp::tcb::ack::AckState>(), size_of::<crate::tcp::tcb::window::Window>()));
}
