//! The body of a response, watched to its end: its status is counted, and it can be cut short with a status.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use hyper::body::{Body, Bytes, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Code, Status};

use crate::metrics::RpcTimer;

/// Resolves when the body must end early, to the status that it ends with.
pub(crate) type Interrupt = Pin<Box<dyn Future<Output = Status> + Send>>;

pub(crate) struct WatchedBody<B> {
    inner: B,
    timer: RpcTimer,
    interrupt: Option<Interrupt>,
    /// Given back when the body is dropped.
    _permit: Option<OwnedSemaphorePermit>,
    ended: bool,
}

impl<B> WatchedBody<B> {
    pub(crate) fn new(
        inner: B,
        timer: RpcTimer,
        interrupt: Option<Interrupt>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { inner, timer, interrupt, _permit: permit, ended: false }
    }
}

/// The code that headers or trailers tell.
pub(crate) fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}

impl<B: Body<Data = Bytes> + Unpin> Body for WatchedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.timer.end(code_of(trailers).unwrap_or(Code::Unknown));
                }
            }
            Poll::Ready(Some(Err(_))) => self.timer.end(Code::Unknown),
            Poll::Ready(None) => self.timer.end(Code::Ok),
            // What is ready goes out first, so a stream's last messages are not lost.
            Poll::Pending => {
                let interrupted = self.interrupt.as_mut().map(|interrupt| interrupt.as_mut().poll(context));
                if let Some(Poll::Ready(status)) = interrupted {
                    self.ended = true;
                    self.timer.end(status.code());
                    let mut trailers = HeaderMap::new();
                    // Fails only for a message that is no header, and ours are plain text.
                    let _ = status.add_header(&mut trailers);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
        polled
    }

    /// An error without a message travels in headers alone. Were the body not known to be empty beforehand, the stream
    /// would end in an empty frame of data, and clients that take the status from the last headers would miss it.
    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}
