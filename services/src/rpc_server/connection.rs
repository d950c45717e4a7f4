//! Connections: plain or with TLS, cut off when the process must end, and closed when nobody is at the other end.
//!
//! tonic waits for busy connections without end, and for the first byte of one without a deadline.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FuturesUnordered, unfold};
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::caller::{Refusal, Refusals, Stage};
use crate::tls::identity::{Identity, NoIdentity};
use crate::tls::{ServerTls, Standing};

/// How long a stranger may take for his first byte, or for a whole handshake.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How long somebody may take nothing of what is written to him.
const STALL: Duration = Duration::from_mins(1);
/// Handshakes at once; more wait to be accepted.
const HANDSHAKES: usize = 1024;
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// What accepts connections.
struct Accepting {
    listener: TcpListener,
    tls: Option<ServerTls>,
    refusals: Arc<Refusals>,
    cut_off: CancellationToken,
    handshakes: FuturesUnordered<Pin<Box<dyn Future<Output = Option<Connection>> + Send>>>,
}

/// Accepts connections; all of them break when `cut_off` is cancelled.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<ServerTls>,
    refusals: Arc<Refusals>,
    cut_off: &CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let (cut_off, handshakes) = (cut_off.clone(), FuturesUnordered::new());
    let accepting = Accepting { listener, tls, refusals, cut_off, handshakes };
    unfold(accepting, |mut accepting| async {
        let connection = accepting.next().await;
        Some((Ok(connection), accepting))
    })
}

impl Accepting {
    async fn next(&mut self) -> Connection {
        loop {
            let room = self.handshakes.len() < HANDSHAKES;
            tokio::select! {
                Some(shaken) = self.handshakes.next(), if !self.handshakes.is_empty() => {
                    if let Some(connection) = shaken {
                        return connection;
                    }
                }
                accepted = self.listener.accept(), if room => match accepted {
                    Ok((socket, address)) => {
                        // Fails only for a socket that is broken already, as its first use will tell.
                        let _ = socket.set_nodelay(true);
                        let Some(tls) = &self.tls else {
                            return Connection::new(Socket::Plain(socket), None, address, &self.cut_off);
                        };
                        let standing = tls.standing();
                        let (acceptor, refusals) = (tls.acceptor(), Arc::clone(&self.refusals));
                        let cut_off = self.cut_off.clone();
                        self.handshakes.push(Box::pin(async move {
                            match tokio::time::timeout(FIRST_WORD, acceptor.accept(socket)).await.ok()? {
                                Ok(shaken) => {
                                    let socket = Socket::Tls(Box::new(shaken));
                                    Some(Connection::new(socket, Some(standing), address, &cut_off))
                                }
                                Err(error) => {
                                    note_refusal(&refusals, address, &error);
                                    None
                                }
                            }
                        }));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }
}

/// Somebody who hangs up is no refusal; who speaks no TLS, or shows a certificate that does not hold, is one.
fn note_refusal(refusals: &Refusals, address: SocketAddr, error: &io::Error) {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    if let Some(cause) = cause {
        let who = stranger(address);
        refusals.note(Stage::Handshake, Refusal { who, what: "handshake".into(), why: cause.to_string() });
    }
}

fn stranger(address: SocketAddr) -> String {
    format!("a stranger at {}", address.ip())
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Who is at the other end of a connection, as a request's extensions tell.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Who its certificate says it is; `None`: it has shown none.
    pub(crate) identity: Option<Arc<Result<Identity, NoIdentity>>>,
}

impl Peer {
    /// What it is called while it is nobody.
    pub(super) fn stranger(&self) -> String {
        stranger(self.address)
    }
}

/// One connection.
pub(super) struct Connection {
    socket: Socket,
    peer: Peer,
    /// Ends with the standing of the other side's certificate: a stream of years must not outlive what opened it.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    cut_off: Pin<Box<WaitForCancellationFutureOwned>>,
    has_spoken: bool,
    /// When it is closed, unless what it waits for comes: the first byte, or room to write.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    fn new(
        socket: Socket,
        standing: Option<Standing>,
        address: SocketAddr,
        cut_off: &CancellationToken,
    ) -> Self {
        let shown = socket.certificates();
        let lost = standing.zip(shown).map(|(standing, shown)| standing.until_lost(shown.to_vec()));
        let own = shown.and_then(<[_]>::first);
        Self {
            peer: Peer { address, identity: own.map(|own| Arc::new(Identity::of(own))) },
            lost: lost.map(|lost| -> Pin<Box<dyn Future<Output = ()> + Send>> { Box::pin(lost) }),
            socket,
            cut_off: Box::pin(cut_off.clone().cancelled_owned()),
            has_spoken: false,
            deadline: Some(Box::pin(tokio::time::sleep(FIRST_WORD))),
        }
    }

    /// Whether the certificate that opened it holds no more.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let over = self.lost.as_mut().is_some_and(|lost| lost.as_mut().poll(context).is_ready());
        if over {
            // Whoever asks again hears the same.
            self.lost = Some(Box::pin(std::future::poll_fn(|_| Poll::Ready(()))));
        }
        over
    }

    fn is_overdue(&mut self, context: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
    }

    fn written(
        &mut self,
        polled: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.has_spoken && polled.is_ready() {
            self.deadline = None;
        } else if self.has_spoken {
            self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
            if self.is_overdue(context) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Socket {
    /// The certificates that the other side has shown, its own first.
    fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(socket) => socket.get_ref().1.peer_certificates(),
        }
    }
}

macro_rules! on_socket {
    ($connection:expr, $socket:ident => $polled:expr) => {
        match &mut $connection.socket {
            Socket::Plain(socket) => {
                let $socket = Pin::new(socket);
                $polled
            }
            Socket::Tls(socket) => {
                let $socket = Pin::new(socket.as_mut());
                $polled
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A connection always has a read pending, so this alone breaks it.
        if self.cut_off.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.is_over(context) {
            return Poll::Ready(Err(io::Error::other("the certificate of the other side holds no more")));
        }
        let polled = on_socket!(self, socket => socket.poll_read(context, buffer));
        if polled.is_pending() && self.is_overdue(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if polled.is_ready() && !std::mem::replace(&mut self.has_spoken, true) {
            self.deadline = None;
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = on_socket!(self, socket => socket.poll_write(context, bytes));
        self.written(polled, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, socket => socket.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_socket!(self, socket => socket.poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = on_socket!(self, socket => socket.poll_write_vectored(context, bytes));
        self.written(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Plain(socket) => socket.is_write_vectored(),
            Socket::Tls(socket) => socket.is_write_vectored(),
        }
    }
}
