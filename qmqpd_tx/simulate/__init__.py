"""
The queue manager on a simulated clock: what a day of mail would be like.

Takes a scenario (scripted destinations, scripted arrivals, main.cf parameters); runs the real queue manager
over the queue in memory, without real time, network or disk; gives figures. The same scenario and seed give
the same figures. A composition root of its own: nobody imports it but the command C{qmqpd-tx simulate}.
"""
