//! A command that runs for a call, and ends with it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pmesh::directory::Peer;
use pmesh::rpc::{Failure, Request};
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time;

use crate::mesh::Result;
use crate::output::note;

/// The longest output that is taken as an answer. A command that writes more is killed.
const MAX_OUTPUT: u64 = 1 << 20;
/// The end of standard error that becomes the message of a failure.
const MAX_ERROR: usize = 2048;

/// Commands that run.
pub(super) struct Jobs {
    program: OsString,
    arguments: Vec<OsString>,
    timeout: Duration,
    /// Each job that runs looks at it.
    stop: watch::Sender<bool>,
}

impl Jobs {
    /// Of this command, program first.
    ///
    /// # Errors
    ///
    /// There is no such program.
    pub(super) fn new(mut command: Vec<OsString>, timeout: Duration) -> Result<Self> {
        if command.is_empty() {
            return Err("there is no command".into());
        }
        let program = command.remove(0);
        if !is_there(&program, env::var_os("PATH").as_deref()) {
            return Err(format!("there is no command {}", program.display()).into());
        }
        Ok(Self { program, arguments: command, timeout, stop: watch::Sender::new(false) })
    }

    /// Runs the command. Dropping the future kills it.
    pub(super) async fn run(&self, request: Request) -> std::result::Result<Value, Failure> {
        // Dropped last, so that nothing runs any more when nobody looks at it.
        let mut stopped = self.stop.subscribe();
        let stops = || Failure::new("the module is no more").with_code("stopped");
        if *stopped.borrow() {
            return Err(stops());
        }
        let Some(Peer { name, number, .. }) = request.caller().data::<Peer>().cloned() else {
            return Err(Failure::new("only peers of the directory may call"));
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("PMESH_CALLER", number.to_string())
            .env("PMESH_ALIAS", name)
            .env("PMESH_MODULE", request.module())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // One of its own, so that all it starts can be killed.
            .process_group(0);
        let child = command.spawn().map_err(|error| {
            note!("cannot run {}: {error}", self.program.display());
            Failure::new("the command cannot be run").with_code("notRun")
        })?;
        let mut job = Job(child);
        tokio::select! {
            done = time::timeout(self.timeout, job.finish(request.into_body())) => done.unwrap_or_else(|_| {
                Err(Failure::new("the command takes too long").with_code("commandTimedOut"))
            }),
            _ = stopped.wait_for(|stop| *stop) => Err(stops()),
        }
    }

    /// Kills all that run. None begins any more.
    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

/// Whether a program can be found, as far as that is known before it runs: by its path, or in one of these folders.
fn is_there(program: &OsStr, folders: Option<&OsStr>) -> bool {
    let runs = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.as_encoded_bytes().contains(&b'/') {
        return runs(program.as_ref());
    }
    // Without folders the system has some of its own.
    folders.is_none_or(|folders| env::split_paths(folders).any(|folder| runs(&folder.join(program))))
}

/// A command that is killed, with all that it has started, when it is dropped before its end.
struct Job(Child);

impl Drop for Job {
    fn drop(&mut self) {
        // There is an id until its end is known, and until then no other group has this number.
        let id = self.0.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        if let Some(group) = id {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Job {
    /// Its answer.
    async fn finish(&mut self, request: Value) -> std::result::Result<Value, Failure> {
        let (stdin, stdout, stderr) = (self.0.stdin.take(), self.0.stdout.take(), self.0.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(Failure::new("the command has no pipes"));
        };
        let asking = async move {
            // It need not read it.
            let _ = stdin.write_all(request.to_string().as_bytes()).await;
            Ok(())
        };
        let ((), output, error) = tokio::try_join!(asking, output(stdout), end(stderr))?;
        // Not before its pipes are closed: until then it can be killed, if it has left others behind.
        let status = self.0.wait().await?;
        if status.success() { answer(output) } else { Err(failure(status, &error)) }
    }
}

/// All of it, within bounds.
async fn output(from: impl AsyncRead + Unpin) -> std::result::Result<Vec<u8>, Failure> {
    let mut output = Vec::new();
    from.take(MAX_OUTPUT + 1).read_to_end(&mut output).await?;
    if output.len() as u64 > MAX_OUTPUT {
        return Err(Failure::new("the command writes more than 1 MiB").with_code("outputTooLarge"));
    }
    Ok(output)
}

/// The end of it.
async fn end(mut from: impl AsyncRead + Unpin) -> std::result::Result<Vec<u8>, Failure> {
    let mut end = Vec::with_capacity(2 * MAX_ERROR);
    while from.read_buf(&mut end).await? > 0 {
        if end.len() >= 2 * MAX_ERROR {
            end.drain(..end.len() - MAX_ERROR);
        }
    }
    end.drain(..end.len().saturating_sub(MAX_ERROR));
    Ok(end)
}

fn answer(output: Vec<u8>) -> std::result::Result<Value, Failure> {
    if let Ok(value) = serde_json::from_slice(&output) {
        return Ok(value);
    }
    let text = String::from_utf8(output)
        .map_err(|_| Failure::new("the command writes neither JSON nor text").with_code("notText"))?;
    Ok(text.strip_suffix('\n').unwrap_or(&text).into())
}

fn failure(status: ExitStatus, error: &[u8]) -> Failure {
    let said = String::from_utf8_lossy(error);
    let message = match said.trim() {
        "" => format!("the command has failed: {status}"),
        said => said.to_owned(),
    };
    Failure::new(message).with_code("commandFailed").with_data(json!({"status": status.code()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = (folder.path().join("file"), Some(folder.path().as_os_str()));
        std::fs::write(&file, "").unwrap();
        assert!(is_there("sh".as_ref(), Some("/nowhere:/bin".as_ref())) && is_there("/bin/sh".as_ref(), path));
        assert!(!is_there("sh".as_ref(), path) && is_there("sh".as_ref(), None));
        for none in ["/no/such/command", "/bin", "", "file", file.to_str().unwrap()] {
            assert!(!is_there(none.as_ref(), path), "{none}");
        }
    }

    #[test]
    fn output_is_json_or_else_text() {
        for (output, value) in [
            ("{\"a\": [1]}\n", json!({"a": [1]})),
            ("17", json!(17)),
            ("hello\n", json!("hello")),
            ("two\nlines\n\n", json!("two\nlines\n")),
            ("", json!("")),
        ] {
            assert_eq!(answer(output.into()), Ok(value));
        }
        assert_eq!(answer(vec![0xff]).unwrap_err().code.as_deref(), Some("notText"));
    }

    #[tokio::test]
    async fn output_is_bounded_and_of_errors_the_end_counts() {
        let most = vec![b'x'; 1 << 20];
        assert_eq!(output(&*most).await.unwrap().len(), most.len());
        assert_eq!(output(&*[&*most, b"x"].concat()).await.unwrap_err().code.as_deref(), Some("outputTooLarge"));
        let told: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(end(&*told).await.unwrap(), told[told.len() - MAX_ERROR..]);
        assert_eq!(end(&b"short"[..]).await.unwrap(), b"short");
    }
}
