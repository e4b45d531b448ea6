"""``vla diagnose``: why does a fine-tuned policy fail?

Each check writes lines with a verdict (ok, warn, fail), the finding in numbers and the fix. A
difference between two conditions is reported only if it is large and also significant over
episodes. With fewer than ``MIN_EPISODES`` episodes a check says that it cannot judge.

====================== ============================================= ============================
fault                  line that names it                            not visible
====================== ============================================= ============================
inverted gripper       action signs (policy against data), packed    inverted before recording,
                       data, replay, statistics (binary share)       without an environment
shifted video          video timing (policy), recorded video timing  shift of one row; images
                       (images against state), packed data, data     without motion
wrong statistics       statistics                                    data differs from training
                                                                     data by less than 1.25 times
swapped cameras        cameras (policy, or look, against data),      swapped before recording, in
                       packed data                                   every episode
shuffled instructions  language (policy against data), packed data   shuffled before recording and
                                                                     also without language in use
delta/absolute mix-up  action type (policy, or actions against       no state of the same quantity
                       state), packed data, statistics, replay
====================== ============================================= ============================
"""
