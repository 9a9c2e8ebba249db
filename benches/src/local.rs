//! Run to completion: the same engine on the application's own thread, which reads where it polls.
//!
//! No owner word, no ring, no return stack. It copies as a read does, or looks at the bytes where
//! the device has put them.

use std::fmt;
use std::hint::black_box;

use prequeue::dpdk::{Mbuf, Mempool};
use prequeue::lcore::{Listeners, local_engine};
use prequeue::socket::{Local, LocalListener, LocalStream, RecvFlags};

use crate::contender::{Application, Burst, Contender, READ_BUFFER};
use crate::engine::{self, SharedTx, Wired};
use crate::frames::{self, Client};
use crate::table;

/// What the application does with what is in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reading {
    /// It has it copied to its buffer.
    Copy,
    /// It looks at it segment by segment, in place.
    InPlace,
}

/// One engine with one listener and at most one connection.
pub struct Receiver {
    reading: Reading,
    wired: Wired<Local>,
    _listeners: Listeners<Mbuf, Local>,
    listener: LocalListener<Mbuf>,
    stream: Option<LocalStream<Mbuf>>,
    out: Box<[u8]>,
}

impl Receiver {
    /// A receiver without a connection that sends from `pool` through `tx`.
    ///
    /// # Panics
    /// Never: nobody else listens.
    pub fn new(pool: &Mempool, tx: SharedTx, reading: Reading) -> Self {
        let (engine, listeners) = local_engine(&engine::config());
        let queue = listeners.listen(frames::PORT, 128).expect("a free port");
        let local = std::net::SocketAddrV4::new(frames::OUR_ADDR, frames::PORT);
        Self {
            reading,
            wired: Wired::new(engine, pool, tx),
            _listeners: listeners,
            listener: LocalListener::new(queue, local),
            stream: None,
            out: vec![0; READ_BUFFER].into(),
        }
    }

    fn copy(stream: &mut LocalStream<Mbuf>, out: &mut [u8], app: &mut dyn Application) -> usize {
        let mut bytes = 0;
        while let Ok(n @ 1..) = stream.recv(out, RecvFlags::NONE) {
            app.read(&out[..n]);
            bytes += n;
            if n < out.len() {
                break;
            }
        }
        bytes
    }

    fn in_place(stream: &mut LocalStream<Mbuf>, application: &mut dyn Application) -> usize {
        let looks = application.looks();
        let read = stream.read_in_place(|segment| {
            let data = black_box(segment.data());
            if looks {
                application.read(data);
            }
        });
        read.unwrap_or(0)
    }
}

impl Contender for Receiver {
    fn name(&self) -> &'static str {
        match self.reading {
            Reading::Copy => table::LOCAL,
            Reading::InPlace => table::LOCAL_IN_PLACE,
        }
    }

    fn open(&mut self, client: &Client) -> u32 {
        if let Some(stream) = self.stream.take() {
            stream.set_linger_zero();
        }
        let iss = self.wired.open(client);
        self.stream = Some(self.listener.accept().expect("a connection").0);
        iss
    }

    fn burst(&mut self, burst: &mut Burst, application: &mut dyn Application) -> usize {
        let Wired { engine, now, tx, .. } = self.wired.moved_on();
        let tx = &mut *tx.borrow_mut();
        engine.input(&mut burst.take_places(), *now, tx);
        let bytes = match &mut self.stream {
            Some(stream) if self.reading == Reading::Copy => {
                Self::copy(stream, &mut self.out, application)
            }
            Some(stream) => Self::in_place(stream, application),
            None => 0,
        };
        engine.turn(*now, tx);
        tx.flush();
        // Whoever asks for what has happened since: this application knows its one connection.
        while engine.home().next_ready().is_some() {}
        bytes
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
