//! The onramp of pmesh, within the process.

use pmesh::onramp;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Result;

pub(crate) struct Onramp {
    url: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Onramp {
    pub(crate) async fn start() -> Result<Self> {
        // Connecting over and over is what is measured: no limit on frames.
        let onramp = onramp::Onramp::builder().announce(false).frames_per_second(0).bind("127.0.0.1:0").await?;
        let url = onramp.url();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(onramp.run(stopped));
        Ok(Self { url, stop, running })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn stop(self) {
        // It may have stopped by itself.
        let _ = self.stop.send(());
        let _ = self.running.await;
    }
}
