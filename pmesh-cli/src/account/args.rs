//! The command line of accounts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use crate::args::{NetworkArgs, json, seconds};

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Log in to a directory once, and keep URL, name and password in a file for the commands below.
    ///
    /// The file holds the password as it is. Nobody but its owner can read it; `pmesh logout` removes it.
    Login(LoginArgs),
    /// Remove the file that `pmesh login` has made.
    Logout(FileArgs),
    /// Make an account with the link of an invitation, once. Then log in.
    Register(RegisterArgs),
    /// Change the password. All logins of the account end.
    Passwd(PasswdArgs),
    /// Tokens, by which two accounts come to trust each other: one requests it, the other claims it.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Who is trusted.
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Invite somebody who has no account: a link goes to standard output, by which one account can be made, in a browser or by
    /// `pmesh register`.
    Invite(InviteArgs),
    /// Show all users that are trusted, and who of them is there.
    Who(WhoArgs),
    /// Call a module of peers. Each reply is a JSON line, whether it is an answer or an error.
    ///
    /// The exit code is 0 if somebody has answered each request, and no call has failed. Peers that do not have the module, that take no
    /// calls or not from this account, or that have left meanwhile, are bystanders: they have a line with the code `unknownModule`,
    /// `refused`, `unsupported`, `unreachable` or `gone`, and are no failure unless there is nobody else. So is a login with the key of this
    /// peer (`ownAddress`).
    Call(CallArgs),
    /// Be a module: each call runs a command.
    ///
    /// The request is its standard input, as JSON. Its standard output is the answer: as JSON if it is that, otherwise as text without
    /// the last line break. With another exit code than 0 the call fails, and the caller gets the end of its standard error. Who calls
    /// is in $PMESH_CALLER (a number) and $PMESH_ALIAS, the module in $PMESH_MODULE. The command is killed with all that it has
    /// started when the caller gives up, and at the end.
    ///
    /// If pmesh itself is killed (SIGKILL), it cannot do that: a command ends then when it next writes, as nobody reads it, and one that
    /// does not write goes on. On Linux `-- setpriv --pdeathsig KILL COMMAND` ends the command with pmesh, but not what it has started.
    Serve(ServeArgs),
}

/// Who logs in.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FileArgs {
    /// The file with URL, name and password [default: $XDG_CONFIG_HOME/pmesh/login.json, or the same in ~/.config].
    #[arg(id = "login", long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

/// Who logs in, and how peers are reached.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    pub(super) login: FileArgs,

    /// The key of this peer: a file made by `pmesh id --new FILE`. Without it the peer has a new one each time. Two logins with the same
    /// key are the same peer, and cannot call each other.
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<PathBuf>,

    #[command(flatten)]
    pub(super) network: NetworkArgs,
}

/// Where the password comes from: never from the command line, which others can see.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct PasswordArgs {
    /// Read the password from standard input, a line, in place of the terminal.
    #[arg(long)]
    pub(super) password_stdin: bool,
}

/// Where a directory is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// The directory: wss://HOST, or ws:// for one on this machine. Behind a path of a proxy wss://HOST/PATH/directory.
    pub(super) url: String,

    /// Let the password go over a network in the clear, by ws://.
    #[arg(long)]
    pub(super) allow_plaintext: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,

    /// The name of the account.
    pub(super) name: String,

    #[command(flatten)]
    pub(super) password: PasswordArgs,

    #[command(flatten)]
    pub(super) login: FileArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RegisterArgs {
    /// The link of the invitation: https://HOST/invite#SECRET. `-` reads it from standard input, a line.
    pub(super) link: String,

    /// The name of the account to be.
    pub(super) name: String,

    /// Let the password go over a network in the clear, by http://.
    #[arg(long)]
    pub(super) allow_plaintext: bool,

    #[command(flatten)]
    pub(super) password: PasswordArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PasswdArgs {
    #[command(flatten)]
    pub(super) password: PasswordArgs,

    #[command(flatten)]
    pub(super) login: FileArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a token for somebody, to be brought to them in another way. It can be claimed once, within ten minutes by default.
    Request {
        /// By which they are to be known to this account.
        alias: String,

        #[command(flatten)]
        login: FileArgs,
    },
    /// Claim the token of somebody: the two accounts then trust each other.
    Claim {
        /// By which they are to be known to this account.
        alias: String,

        /// The token. `-` reads it from standard input, a line.
        #[arg(allow_hyphen_values = true)]
        token: String,

        #[command(flatten)]
        login: FileArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Print the aliases of all who are trusted.
    List {
        #[command(flatten)]
        login: FileArgs,
    },
    /// End the trust, on both sides.
    Revoke {
        /// By which they are known to this account.
        alias: String,

        #[command(flatten)]
        login: FileArgs,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InviteArgs {
    /// The email address of the one who is invited. No mail is sent.
    pub(super) email: String,

    #[command(flatten)]
    pub(super) login: FileArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WhoArgs {
    /// Write JSON: an object, or with --follow one a line.
    #[arg(long)]
    pub(super) json: bool,

    /// Go on with what happens.
    #[arg(long)]
    pub(super) follow: bool,

    #[command(flatten)]
    pub(super) login: FileArgs,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CallArgs {
    /// Whom: "*" for all peers, an alias for those of a user, Us for other logins of the own account, or the number of a peer.
    pub(super) target: String,

    /// The name of the module.
    pub(super) module: String,

    /// The request, as JSON, of 1 MiB at most unless the peer takes more. `-` reads requests from standard input, and makes a call of
    /// each, one after the other.
    #[arg(value_name = "JSON", default_value = "null", value_parser = body, allow_hyphen_values = true)]
    pub(super) request: Body,

    /// How long each peer may take to answer, in seconds [default: 30, for streams no bound].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) timeout: Option<Duration>,

    /// Keep connections for some seconds, so that the next request finds them.
    #[arg(long)]
    pub(super) keep: bool,

    /// The module answers by a stream: each item is a line.
    #[arg(long)]
    pub(super) stream: bool,

    #[command(flatten)]
    pub(super) session: SessionArgs,
}

/// What a call says.
#[derive(Debug, Clone)]
pub(super) enum Body {
    One(Value),
    Stdin,
}

fn body(text: &str) -> Result<Body, String> {
    if text == "-" { Ok(Body::Stdin) } else { json(text).map(Body::One) }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServeArgs {
    /// The name of the module.
    // What begins with a hyphen cannot go behind `--` here: that is where the command begins.
    #[arg(allow_hyphen_values = true)]
    pub(super) module: String,

    /// Commands that run at a time. Further calls are told that this peer is busy. So many peers of one user and
    /// 8 more may be connected, and of all users twice as many.
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) jobs: u16,

    /// How long a command may take, in seconds. Then it is killed.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(super) timeout: Duration,

    /// Take calls of this user only. May be given more than once. Without it everybody who is trusted may call.
    #[arg(long, value_name = "ALIAS")]
    pub(super) only: Vec<String>,

    #[command(flatten)]
    pub(super) session: SessionArgs,

    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, num_args = 1..)]
    pub(super) command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::args::{Args, Command};

    fn parse(line: &str) -> AccountCommand {
        match Args::try_parse_from(line.split(' ')) {
            Ok(Args { command: Command::Account(command) }) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn no_option_is_in_the_way_of_another() {
        Args::command().debug_assert();
    }

    #[test]
    fn secrets_begin_as_they_like() {
        for secret in ["MOy1", "-MOy1_x-", "-", "--MOy1", "-hOy1", "-V0y1", "-1", "-login"] {
            for line in
                [format!("Al {secret} --login f"), format!("--login f Al {secret}"), format!("Al --login f {secret}")]
            {
                let AccountCommand::Token(TokenCommand::Claim { alias, token, login }) =
                    parse(&format!("pmesh token claim {line}"))
                else {
                    panic!("{line}");
                };
                assert_eq!((&*alias, &*token, login.file.as_deref()), ("Al", secret, Some("f".as_ref())), "{line}");
            }
        }
    }

    #[test]
    fn a_module_takes_calls_of_those_who_are_named_and_no_word_more() {
        for line in ["--only alice --only bob Upper", "Upper --only alice --only bob", "--only alice Upper --only bob"]
        {
            let AccountCommand::Serve(args) = parse(&format!("pmesh serve {line} -- cat")) else { panic!("{line}") };
            assert_eq!((&*args.module, args.only), ("Upper", vec!["alice".to_owned(), "bob".to_owned()]), "{line}");
        }
    }

    #[test]
    fn names_may_begin_with_a_hyphen() {
        for line in [
            "token request -- -al",
            "token claim -- -al -MOy1",
            "trust revoke -- -al",
            "login ws://x -- -al",
            "register http://x/invite#-MOy1 -- -al",
            "invite -- -al@x",
            "call -- -al -up -1",
            "call Al Up -1 --keep",
            "serve -up --only=-al --jobs 3 -- cat",
            "serve --jobs 3 -up -- cat",
        ] {
            parse(&format!("pmesh {line}"));
        }
        assert!(Args::try_parse_from(["pmesh", "peer", "--onramp", "ws://x", "--offer-data", "-1.5"]).is_ok());
    }
}
