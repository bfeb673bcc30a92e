//! `pmesh id`: key files.

use std::process::ExitCode;

use pmesh::Identity;
use serde_json::json;

use crate::args::IdArgs;
use crate::mesh;
use crate::output::{note, print_blocking};
use crate::reason;

/// Shows the peer id of a key file, or makes the file.
pub(crate) fn run(args: &IdArgs) -> ExitCode {
    let identity = if args.new { Identity::create(&args.file) } else { Identity::load(&args.file) };
    match identity {
        Ok(identity) => {
            let id = identity.peer_id();
            let printed = if args.json {
                print_blocking(json!({"event": "identity", "file": args.file.to_string_lossy(), "peerId": id}))
            } else {
                print_blocking(id)
            };
            mesh::exit("id", printed)
        }
        Err(error) => {
            if args.json {
                let reason = reason::of_identity_file(&error);
                let _ = print_blocking(json!({"event": "error", "reason": reason, "message": error.to_string()}));
            }
            note!("pmesh id: {error}");
            ExitCode::FAILURE
        }
    }
}
