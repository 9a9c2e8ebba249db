//! What an application may ask of a connection without changing it: TCP_INFO and SO_MEMINFO.
//!
//! Called by application threads, several at once if they like; each owns the socket for as long as it
//! takes to look. Ages are read from the lcore's clock.

use std::io;

use crate::buf::PacketBuf;
use crate::tcp::tcb::{MemInfo, Tcb, TcpInfo};

use super::local::LocalStream;
use super::owner::Ref;
use super::reader::Reader;
use super::recv::RecvError;
use super::socket::Socket;
use super::stream::TcpStream;

impl<B: PacketBuf> TcpStream<B> {
    /// What the stack knows of the connection (TCP_INFO), in Linux's fields, numbers and units.
    ///
    /// # Errors
    /// `Deadlock` if the calling thread holds a guard, which can ask the connection itself.
    pub fn info(&self) -> io::Result<TcpInfo> {
        info(&self.handle().socket)
    }

    /// The memory that the connection takes (SO_MEMINFO), in bytes.
    ///
    /// # Errors
    /// `Deadlock` if the calling thread holds a guard.
    pub fn mem_info(&self) -> io::Result<MemInfo> {
        mem_info(&self.handle().socket)
    }
}

impl<B: PacketBuf> Reader<'_, B> {
    /// As [`TcpStream::info`].
    ///
    /// # Errors
    /// `Deadlock` if the calling thread holds a guard.
    pub fn info(&self) -> io::Result<TcpInfo> {
        info(self.socket())
    }

    /// As [`TcpStream::mem_info`].
    ///
    /// # Errors
    /// `Deadlock` if the calling thread holds a guard.
    pub fn mem_info(&self) -> io::Result<MemInfo> {
        mem_info(self.socket())
    }
}

impl<B: PacketBuf> LocalStream<B> {
    /// What the stack knows of the connection (TCP_INFO), as of the last poll.
    pub fn info(&self) -> TcpInfo {
        self.socket().info()
    }

    /// The memory that the connection takes (SO_MEMINFO), in bytes.
    pub fn mem_info(&self) -> MemInfo {
        self.socket().mem_info()
    }
}

fn info<B: PacketBuf>(socket: &Ref<Socket<B>>) -> io::Result<TcpInfo> {
    look(socket, |tcb| {
        // Without a clock it is the moment when something last came.
        tcb.info(socket.home.now().unwrap_or_else(|| tcb.last_heard_at()))
    })
}

fn mem_info<B: PacketBuf>(socket: &Ref<Socket<B>>) -> io::Result<MemInfo> {
    look(socket, Tcb::mem_info)
}

fn look<B: PacketBuf, R>(socket: &Ref<Socket<B>>, at: impl FnOnce(&Tcb<B>) -> R) -> io::Result<R> {
    if socket.is_guarded_by_this_thread() {
        return Err(RecvError::Deadlock.into());
    }
    Ok(at(&socket.own().tcb))
}
