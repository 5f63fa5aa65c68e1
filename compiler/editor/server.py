"""The language server: messages in, messages out.

It answers before the language is loaded, and looks at whole texts when no message waits.
"""

import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from qcc.codegen.target.interruption import held_back
from qcc.compiler.editor.rpc import BrokenStreamError, Message, messages, write_message
from qcc.dsl.diagnostics.report import QccError

if TYPE_CHECKING:
    from qcc.compiler.editor.session import ClientSession

IDLE_S = 0.25
"""How long nothing must come before whole texts are looked at."""
NO_METHOD, BAD_PARAMETERS, BUG, FAILED = -32601, -32602, -32603, -32803
CAPABILITIES: Message = {
    "positionEncoding": "utf-16",
    "textDocumentSync": {"openClose": True, "change": 2},
    "completionProvider": {"triggerCharacters": ["=", "(", "[", "$", '"', " ", "|"]},
    "hoverProvider": True,
    "definitionProvider": True,
    "referencesProvider": True,
    "renameProvider": True,
    "documentFormattingProvider": True,
    "codeActionProvider": {"codeActionKinds": ["quickfix"]},
    "inlayHintProvider": True,
}

Send = Callable[[Message], None]


class Server:
    """One client's server.

    Args:
        source: what the client writes to.
        sink: what the client reads.
        model: whose layers are counted, unless the client names another.
    """

    def __init__(self, source: IO[bytes], sink: IO[bytes], model: Path | None = None) -> None:
        self._source, self._sink, self._model = source, sink, model
        self._waiting: queue.SimpleQueue[Message | BrokenStreamError | None] = queue.SimpleQueue()
        self._session: ClientSession | None = None
        self._writing = threading.Lock()
        self._shut_down = False

    def run(self) -> int:
        """Serve until the client leaves; the exit status is returned.

        Raises:
            BrokenStreamError: what came is no message.
        """
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            try:
                message = self._waiting.get(timeout=IDLE_S if self._unsettled() else None)
            except queue.Empty:
                self._rest()
                continue
            if isinstance(message, BrokenStreamError):
                raise message
            if message is None or message.get("method") == "exit":
                return 0 if self._shut_down else 1
            self._take(message)

    def _read(self) -> None:
        try:
            for message in messages(self._source):
                self._waiting.put(message)
                if message.get("method") == "exit":
                    return  # at the end of the process nobody may hold the stream
        except BrokenStreamError as error:
            self._waiting.put(error)
        except (OSError, ValueError):  # the stream was closed
            pass
        self._waiting.put(None)

    def _unsettled(self) -> bool:
        return self._session is not None and self._session.unsettled

    def _rest(self) -> None:
        try:
            if self._session is not None:
                self._session.settle()
        except Exception:  # a bug must not take the editor's server away
            self._complain()

    def _take(self, message: Message) -> None:
        method, number = message.get("method"), message.get("id")
        if not isinstance(method, str):
            return  # an answer to a request of ours, which asks for nothing
        try:
            result = self._answer(method, message.get("params") or {})
        except QccError as error:
            self._fail(number, FAILED, error.diagnostics[0].message)
        except _NoMethodError:
            self._fail(number, NO_METHOD, f"qcc does not know `{method}`")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._complain()
            self._fail(number, BAD_PARAMETERS, f"cannot do `{method}` with these parameters: {error}")
        except Exception as error:
            self._complain()
            self._fail(number, BUG, f"a bug in qcc: {type(error).__name__}: {error}")
        else:
            if number is not None:
                self._send({"id": number, "result": result})

    def _answer(self, method: str, given: Message) -> Any:  # noqa: ANN401 - as the protocol has it
        if method == "initialize":
            options = given.get("initializationOptions") or {}
            if isinstance(options, dict) and isinstance(options.get("model"), str) and options["model"]:
                self._model = Path(options["model"])
            return {"capabilities": CAPABILITIES, "serverInfo": {"name": "qcc"}}
        if method == "shutdown":
            self._shut_down = True
            return None
        handler = self._loaded().handlers.get(method)
        if handler is None:
            if method.startswith("$/") or method == "initialized":
                return None
            raise _NoMethodError
        return handler(given)

    def _loaded(self) -> "ClientSession":
        """The part that knows the language, which takes a moment to load."""
        if self._session is None:
            with held_back():
                from qcc.compiler.editor.session import ClientSession  # all that the language may name

            self._session = ClientSession(self._send, self._model)
        return self._session

    def _send(self, message: Message) -> None:
        with self._writing:
            write_message(self._sink, message)

    def _fail(self, number: object, code: int, text: str) -> None:
        if number is not None:
            self._send({"id": number, "error": {"code": code, "message": text}})

    def _complain(self) -> None:
        sys.stderr.write(traceback.format_exc())


class _NoMethodError(Exception):
    """The client asked for something else."""
