//! What carries the frames of a link: a channel of a node, or a stream of the overlay.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::wire::{Frame, MAX_FRAME};
use crate::node::{Channel, Message, Messages};
use crate::overlay::stream::Stream;

/// The channel of a node, and the service of the overlay.
pub(super) const NAME: &str = "pmesh.rpc";

/// What may wait in the queue of a channel while further frames wait for their turn: enough for a full packet.
const QUEUED: usize = 64 * 1024;

pub(super) struct Port {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
}

/// Sends frames. Dropping it ends the link, after what is queued.
pub(super) enum Sender {
    Channel(Channel),
    Stream(WriteHalf<Stream>),
}

pub(super) enum Receiver {
    Channel(Messages),
    Stream(ReadHalf<Stream>),
}

/// There is nothing more to send to, or to receive.
pub(super) struct Over;

impl Port {
    pub(super) fn of_channel(channel: Channel) -> Self {
        Self { receiver: Receiver::Channel(channel.messages()), sender: Sender::Channel(channel) }
    }

    pub(super) fn of_stream(stream: Stream) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { sender: Sender::Stream(write), receiver: Receiver::Stream(read) }
    }
}

impl Sender {
    /// Waits until a frame that is sent now would not wait for much.
    pub(super) async fn ready(&self) {
        if let Self::Channel(channel) = self {
            channel.drained(QUEUED).await;
        }
    }

    /// Sends a frame, once there is room. Not cancel safe.
    pub(super) async fn send(&mut self, frame: &Frame) -> Result<(), Over> {
        let frame = frame.encode();
        match self {
            Self::Channel(channel) => channel.send(frame).await.map_err(|_| Over),
            Self::Stream(stream) => {
                let mut bytes = BytesMut::with_capacity(4 + frame.len());
                bytes.put_u32(frame.len() as u32);
                bytes.extend_from_slice(&frame);
                stream.write_all(&bytes).await.map_err(|_| Over)
            }
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Self::Channel(channel) = self {
            // Once polled, the closing goes on.
            let _ = channel.close().now_or_never();
        }
    }
}

impl Receiver {
    /// The next frame. Not cancel safe. What is none for certain ends the link.
    pub(super) async fn receive(&mut self) -> Result<Bytes, Over> {
        match self {
            Self::Channel(messages) => match messages.next().await {
                Some(Message::Binary(frame)) => Ok(frame),
                _ => Err(Over),
            },
            Self::Stream(stream) => {
                let length = stream.read_u32().await.map_err(|_| Over)? as usize;
                if length > MAX_FRAME {
                    return Err(Over);
                }
                let mut frame = vec![0; length];
                stream.read_exact(&mut frame).await.map_err(|_| Over)?;
                Ok(frame.into())
            }
        }
    }
}
