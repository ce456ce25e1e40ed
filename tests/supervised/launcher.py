"""A Storyloop in small, to be killed: reads an order on stdin, launches it, says so, and watches."""

import sys

import msgspec

from storyloop.world.process import Order, launch

print("ready", flush=True)
call = launch(msgspec.json.decode(sys.stdin.readline(), type=Order, dec_hook=lambda kind, value: kind(value)))
print("launched", flush=True)
call.wait()
