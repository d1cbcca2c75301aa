//! A network between a node and its database that can fall silent: nothing that is sent arrives, and nobody is told.

use std::pin::pin;

use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Listens on a port of 127.0.0.1 and passes on what is sent to another.
pub struct Proxy {
    pub port: u16,
    /// How often it has fallen silent, and whether it is.
    silence: watch::Sender<(u64, bool)>,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (silence, silent) = watch::channel((0, false));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, to, silent.clone()));
            }
        });
        Self { port, silence }
    }

    /// From now on nothing gets through. Connections stay open, as far as either side can see, and are never heard of again.
    pub fn fall_silent(&self) {
        self.silence.send_modify(|(times, is)| (*times, *is) = (*times + 1, true));
    }

    /// New connections get through.
    pub fn speak(&self) {
        self.silence.send_modify(|(_, is)| *is = false);
    }
}

/// Passes on what is sent in both directions until one of them ends or the network falls silent.
async fn pass(near: TcpStream, to: u16, mut silent: watch::Receiver<(u64, bool)>) {
    let (times, is_silent) = *silent.borrow();
    let falls_silent = async {
        if !is_silent {
            drop(silent.wait_for(|(now, _)| *now > times).await);
        }
    };
    let passed_on = async {
        let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
        let (mut there, mut back) = (pin!(copy(&mut from_near, &mut to_far)), pin!(copy(&mut from_far, &mut to_near)));
        tokio::select! {
            _ = &mut there => {}
            _ = &mut back => {}
        }
    };
    let mut passed_on = pin!(passed_on);
    tokio::select! {
        biased;
        // Nothing is read any more, and nothing is closed.
        () = falls_silent => std::future::pending().await,
        () = &mut passed_on => {}
    }
}
