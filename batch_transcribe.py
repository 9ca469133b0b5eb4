"""python batch_transcribe.py FOLDER > results.json: the same as `nightscribe client FOLDER`, options included."""

import sys

from flows.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "client")
    main()
